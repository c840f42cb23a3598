// How well general compressors do on a text: the yardstick beside a model's bits per byte.
#pragma once

#include <string_view>

#include "base/result.h"

namespace ferry::cli {

/// Bits per byte of `xz -9e` and `zstd -19` on the text, headers included.
Result<double> xz_bits_per_byte(std::string_view text);
Result<double> zstd_bits_per_byte(std::string_view text);

}  // namespace ferry::cli
