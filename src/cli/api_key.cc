#include "cli/api_key.h"

#include <vector>

#include "serve/api_keys.h"

namespace ferry::cli {

Result<std::string> read_api_key(const std::string& path) {
  TRY_ASSIGN(const std::vector<std::string> keys, serve::read_key_file(path));
  return keys.front();
}

}  // namespace ferry::cli
