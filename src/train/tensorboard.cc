// TensorBoard's event files, written by hand: the few fields of three protobuf messages (Event,
// Summary, SessionLog; tensorboard/compat/proto) and TFRecord's framing.
#include <array>
#include <bit>

#include "train/metrics.h"

namespace ferry::tensorboard {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82F63B78u : 0);
    table[i] = c;
  }
  return table;
}();

template <typename T>
void put(std::string& out, T v) {  // little-endian
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(v >> (8 * i) & 0xFF);
}

void put_varint(std::string& out, uint64_t v) {
  for (; v >= 0x80; v >>= 7) out += static_cast<char>((v & 0x7F) | 0x80);
  out += static_cast<char>(v);
}

// Protobuf fields: a key of (number << 3 | wire type), then the value.
void put_int(std::string& out, unsigned field, uint64_t v) {
  put_varint(out, field << 3 | 0);
  put_varint(out, v);
}
void put_double(std::string& out, unsigned field, double v) {
  put_varint(out, field << 3 | 1);
  put(out, std::bit_cast<uint64_t>(v));
}
void put_bytes(std::string& out, unsigned field, std::string_view v) {
  put_varint(out, field << 3 | 2);
  put_varint(out, v.size());
  out += v;
}
void put_float(std::string& out, unsigned field, float v) {
  put_varint(out, field << 3 | 5);
  put(out, std::bit_cast<uint32_t>(v));
}

/// Event: 1 wall_time, 2 step, then one of 3 file_version, 5 summary, 7 session_log.
std::string event(double wall_time_s, int64_t step, unsigned field, std::string_view what) {
  std::string out;
  put_double(out, 1, wall_time_s);
  if (step != 0)
    put_int(out, 2, static_cast<uint64_t>(step));  // zero is what an absent field means
  put_bytes(out, field, what);
  return out;
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes)
    crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  crc = ~crc;
  return std::rotr(crc, 15) + 0xA282EAD8u;
}

std::string framed(std::string_view bytes) {
  std::string out;
  put(out, static_cast<uint64_t>(bytes.size()));
  put(out, masked_crc32c(std::string_view(out.data(), 8)));
  out += bytes;
  put(out, masked_crc32c(bytes));
  return out;
}

std::string version_event(double wall_time_s) { return event(wall_time_s, 0, 3, "brain.Event:2"); }

std::string session_start_event(double wall_time_s, int64_t first_step) {
  std::string session;
  put_int(session, 1, 1);  // status: START
  return event(wall_time_s, first_step, 7, session);
}

std::string scalars_event(double wall_time_s, int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const Scalar& s : scalars) {  // Summary: repeated 1 value {1 tag, 2 simple_value}
    std::string value;
    put_bytes(value, 1, s.tag);
    put_float(value, 2, s.value);
    put_bytes(summary, 1, value);
  }
  return event(wall_time_s, step, 5, summary);
}

}  // namespace ferry::tensorboard
