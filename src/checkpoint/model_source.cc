#include "checkpoint/model_source.h"

#include "base/file.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/model_dir.h"

namespace ferry {

Result<std::unique_ptr<ModelSource>> open_model_source(const std::string& path) {
  if (path_exists(path) && !is_folder(path)) {
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
