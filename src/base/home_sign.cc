#include "base/home_sign.h"

namespace ferry {

std::string home_sign_problem(std::string_view path) {
  if (!path.starts_with('~') || (path != "~" && path.find('/') == path.npos)) return "";
  return "\"~\" is no home folder here, as only a shell reads it so, and not behind \"=\" or in "
         "quotes: write the whole "
         "path, on a command line with $HOME (a folder that is called so: \"./~\")";
}

}  // namespace ferry
