#include "text/stream_decoder.h"

#include "text/utf8.h"

namespace ferry::text {

std::string StreamDecoder::push(int32_t id) {
  if (skip_specials_ && tokenizer_->is_special(id)) return {};
  held_ += tokenizer_->token_bytes(id);
  std::string out;
  size_t i = 0;
  while (i < held_.size()) {
    const Utf8Char c = decode_utf8(held_, i);
    if (c.cut_short) break;
    append_utf8(out, c.point);
    i += c.bytes;
  }
  held_.erase(0, i);
  return out;
}

std::string StreamDecoder::flush() {
  std::string out = replace_ill_formed(held_);
  held_.clear();
  return out;
}

}  // namespace ferry::text
