// "~" at the beginning of a path: a shell reads it as a person's home folder where it stands by itself, and neither
// behind "=" nor in quotes or files; there it would be the name of a folder, which nobody means.
#pragma once

#include <string>
#include <string_view>

namespace ferry {

/// Of "~", "~/..." and "~NAME/...": what they are not and what to write, behind the path; else empty.
std::string home_sign_problem(std::string_view path);

}  // namespace ferry
