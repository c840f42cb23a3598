#include "checkpoint/model_source.h"

#include "base/check.h"
#include "base/file.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/model_dir.h"

namespace ferry {

std::string expert_name(std::string_view name_with_star, int64_t expert) {
  const size_t star = name_with_star.find('*');
  check(star != name_with_star.npos && name_with_star.find('*', star + 1) == name_with_star.npos,
        "model dir: {} needs exactly one '*'",
        name_with_star);
  return fmt::format(
      "{}{}{}", name_with_star.substr(0, star), expert, name_with_star.substr(star + 1));
}

std::string root_of_weights(const std::map<std::string, Digest>& files) {
  constexpr std::string_view kPrefix = "ferry-weights-1\n";
  Hasher hasher;
  hasher.update(kPrefix.data(), kPrefix.size());
  for (const auto& [name, root] : files) {
    const std::string line = name + "\n" + to_hex(root) + "\n";
    hasher.update(line.data(), line.size());
  }
  return hasher.hex();
}

Result<std::unique_ptr<ModelSource>> open_model_source(const std::string& path) {
  TRY_ASSIGN(const bool there, is_there(path));
  if (there && !is_folder(path)) {
    TRY_ASSIGN(const bool gguf, is_gguf(path));
    if (gguf) {
      TRY_ASSIGN(GgufModel model, GgufModel::open(path));
      return std::make_unique<GgufModel>(std::move(model));
    }
  }
  TRY_ASSIGN(ModelDir dir, ModelDir::open(path));
  return std::make_unique<ModelDir>(std::move(dir));
}

}  // namespace ferry
