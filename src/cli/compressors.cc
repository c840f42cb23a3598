#include "cli/compressors.h"

#include <lzma.h>
#include <zstd.h>

#include <vector>

namespace ferry::cli {
namespace {

double bits(size_t compressed, std::string_view text) {
  return 8.0 * static_cast<double>(compressed) / static_cast<double>(text.size());
}

}  // namespace

Result<double> xz_bits_per_byte(std::string_view text) {
  std::vector<uint8_t> out(lzma_stream_buffer_bound(text.size()));
  size_t size = 0;
  const lzma_ret r = lzma_easy_buffer_encode(9 | LZMA_PRESET_EXTREME,
                                             LZMA_CHECK_CRC64,
                                             nullptr,
                                             reinterpret_cast<const uint8_t*>(text.data()),
                                             text.size(),
                                             out.data(),
                                             &size,
                                             out.size());
  if (r != LZMA_OK)
    return fail(
        Code::kExhausted, "xz: cannot compress the text (lzma error {})", static_cast<int>(r));
  return bits(size, text);
}

Result<double> zstd_bits_per_byte(std::string_view text) {
  std::vector<char> out(ZSTD_compressBound(text.size()));
  const size_t size = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 19);
  if (ZSTD_isError(size))
    return fail(Code::kExhausted, "zstd: cannot compress the text: {}", ZSTD_getErrorName(size));
  return bits(size, text);
}

}  // namespace ferry::cli
