#include "cli/tokenizer_path.h"

#include "base/file.h"
#include "base/stand_in.h"
#include "checkpoint/model_texts.h"
#include "checkpoint/passport.h"
#include "checkpoint/wrong_path.h"

namespace ferry::cli {

Result<void> check_tokenizer_path(const std::string& path) {
  constexpr uint64_t kBytesMax = uint64_t{1} << 30;
  if (is_folder(path)) {
    const std::string file = join_path(path, kTokenizerName);
    if (path_exists(file))
      return fail(Code::kInvalidInput, "{}: is a folder; its tokenizer is {}", path, file);
    return fail(Code::kInvalidInput,
                "{}: is a folder without a {}{}",
                path,
                kTokenizerName,
                path_exists(join_path(path, kConfigName)) ? why_missing(path, kTokenizerName)
                                                          : "; it " + instead_of_model_dir(path));
  }
  TRY_ASSIGN(FileReader reader, FileReader::open(path));
  char head[4] = {};
  TRY(reader.read(head, sizeof head));
  if (std::string_view(head, sizeof head) == "GGUF")
    return fail(Code::kInvalidInput,
                "{}: is a GGUF file; `{}` writes its tokenizer as DIR/{}: name that",
                path,
                command_to_convert(path),
                kTokenizerName);
  TRY_ASSIGN(const std::string content, read_listed_file(path, kBytesMax));
  if (const std::string what = stands_for(content); !what.empty())
    return fail(Code::kCorrupt, "{}: {}", path, what);
  return {};
}

}  // namespace ferry::cli
