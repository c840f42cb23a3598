#include "base/result.h"

namespace ferry {

int exit_status(Code code) {
  switch (code) {
    case Code::kVerdict: return 1;
    case Code::kInvalidInput:
    case Code::kNotFound:
    case Code::kCorrupt: return 2;
    case Code::kUnavailable:
    case Code::kTimeout:
    case Code::kExhausted: return 3;
  }
  return 3;
}

}  // namespace ferry
