#include "data/byte_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"

namespace ferry::data {
namespace {

constexpr size_t kInputBytes = size_t{256} << 10;
constexpr int kZstdWindowLogMax = 27;  // 128 MiB: what zstd itself reads without --long

enum class Kind { kPlain, kGzip, kZstd };

struct Magic {
  std::string_view bytes;
  const char* name;
  const char* advice;
};
constexpr Magic kNotText[] = {
    {std::string_view("PK\x03\x04", 4), "a zip archive", "unpack it first"},
    {std::string_view("\xFD"
                      "7zXZ\0",
                      6),
     "xz-compressed",
     "decompress it first (xz -dk), or recompress it with zstd"},
    {"BZh", "bzip2-compressed", "decompress it first (bzip2 -dk), or recompress it with zstd"},
    {"PAR1", "a Parquet file", "convert it to .jsonl first"},
    {"%PDF-", "a PDF", "extract its text first (pdftotext)"},
};
constexpr std::string_view kGzipMagic("\x1F\x8B", 2);
constexpr std::string_view kZstdMagic("\x28\xB5\x2F\xFD", 4);

}  // namespace

struct ByteStream::State {
  FileReader file;
  std::vector<char> input = std::vector<char>(kInputBytes);
  size_t begin = 0, end = 0;  // of what is not yet used of `input`
  uint64_t file_bytes = 0;    // read into `input` so far
  bool file_ended = false;
  Hasher hasher;

  Kind kind = Kind::kPlain;
  z_stream gzip{};
  bool gzip_open = false;
  bool in_member = false;  // inside a gzip member or zstd frame
  uint64_t members = 0;
  ZSTD_DCtx* zstd = nullptr;

  explicit State(FileReader f) : file(std::move(f)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (gzip_open) inflateEnd(&gzip);
    ZSTD_freeDCtx(zstd);
  }

  uint64_t offset() const { return file_bytes - (end - begin); }
  std::string_view ahead() const { return {input.data() + begin, end - begin}; }

  /// Reads more once all is used.
  Result<void> refill() {
    if (begin < end || file_ended) return {};
    TRY_ASSIGN(const size_t n, file.read(input.data(), input.size()));
    begin = 0;
    end = n;
    file_bytes += n;
    file_ended = n == 0;
    hasher.update(input.data(), n);
    return {};
  }

  template <typename... Args>
  tl::unexpected<Status> corrupt(fmt::format_string<Args...> what, Args&&... args) const {
    return fail(Code::kCorrupt,
                "{}: {} (byte {} of the file); fetch or make the file again",
                file.path(),
                fmt::format(what, std::forward<Args>(args)...),
                offset());
  }

  Result<size_t> read_plain(char* out, size_t size) {
    TRY(refill());
    const size_t n = std::min(size, end - begin);
    std::memcpy(out, input.data() + begin, n);
    begin += n;
    return n;
  }

  Result<size_t> read_gzip(char* out, size_t size) {
    const size_t wanted = std::min<size_t>(size, size_t{1} << 30);
    gzip.next_out = reinterpret_cast<Bytef*>(out);
    gzip.avail_out = static_cast<uInt>(wanted);
    while (gzip.avail_out == wanted) {
      TRY(refill());
      if (begin == end) {
        if (in_member) return corrupt("the gzip data is cut short");
        return size_t{0};
      }
      if (!in_member) {
        // After a member: another one, zeros that pad to a block, or nothing that belongs here.
        if (members > 0 && input[begin] == '\0') {
          ++begin;
          continue;
        }
        if (members > 0 && input[begin] != kGzipMagic[0])
          return corrupt("bytes that are not gzip after its end");
        check(inflateReset(&gzip) == Z_OK, "byte_stream: zlib cannot be reset");
        in_member = true;
      }
      gzip.next_in = reinterpret_cast<Bytef*>(input.data() + begin);
      gzip.avail_in = static_cast<uInt>(end - begin);
      const int code = inflate(&gzip, Z_NO_FLUSH);
      begin = end - gzip.avail_in;
      if (code == Z_STREAM_END) {
        in_member = false;
        ++members;
      } else if (code == Z_MEM_ERROR) {
        return fail(Code::kExhausted, "{}: no memory to decompress it", file.path());
      } else if (code != Z_OK && code != Z_BUF_ERROR) {
        return corrupt("the gzip data is damaged: {}",
                       gzip.msg != nullptr ? gzip.msg : "unknown error");
      }
    }
    return wanted - gzip.avail_out;
  }

  Result<size_t> read_zstd(char* out, size_t size) {
    ZSTD_outBuffer output{out, size, 0};
    while (output.pos == 0) {
      TRY(refill());
      // At the end of the file the decoder may still hold output: ask it once more, with no input.
      ZSTD_inBuffer in{input.data() + begin, end - begin, 0};
      const bool at_end = begin == end;
      if (at_end && !in_member) return size_t{0};
      const size_t code = ZSTD_decompressStream(zstd, &output, &in);
      begin += in.pos;
      if (ZSTD_isError(code))
        return corrupt("the zstd data cannot be read: {}", ZSTD_getErrorName(code));
      in_member = code != 0;
      if (at_end && in_member && output.pos == 0) return corrupt("the zstd data is cut short");
    }
    return output.pos;
  }
};

ByteStream::ByteStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
ByteStream::ByteStream(ByteStream&&) noexcept = default;
ByteStream& ByteStream::operator=(ByteStream&&) noexcept = default;
ByteStream::~ByteStream() = default;

Result<ByteStream> ByteStream::open(const std::string& path) {
  TRY_ASSIGN(FileReader file, FileReader::open(path));
  auto state = std::make_unique<State>(std::move(file));
  TRY(state->refill());
  const std::string_view head = state->ahead();
  for (const Magic& magic : kNotText)
    if (head.starts_with(magic.bytes))
      return fail(Code::kInvalidInput, "{}: is {}; {}", path, magic.name, magic.advice);
  if (head.starts_with(kGzipMagic)) {
    state->kind = Kind::kGzip;
    check(inflateInit2(&state->gzip, MAX_WBITS + 16) == Z_OK,
          "byte_stream: zlib cannot be started");
    state->gzip_open = true;
  } else if (head.starts_with(kZstdMagic)) {
    state->kind = Kind::kZstd;
    state->zstd = ZSTD_createDCtx();
    check(state->zstd != nullptr, "byte_stream: zstd cannot be started");
    ZSTD_DCtx_setParameter(state->zstd, ZSTD_d_windowLogMax, kZstdWindowLogMax);
  } else if (path.ends_with(".gz") || path.ends_with(".dz") || path.ends_with(".zst")) {
    return fail(Code::kCorrupt,
                "{}: its name says compressed, but it begins neither as gzip nor as zstd; "
                "fetch or make the file again, or rename it",
                path);
  }
  return ByteStream(std::move(state));
}

Result<size_t> ByteStream::read(char* out, size_t size) {
  switch (state_->kind) {
    case Kind::kPlain: return state_->read_plain(out, size);
    case Kind::kGzip: return state_->read_gzip(out, size);
    case Kind::kZstd: return state_->read_zstd(out, size);
  }
  return size_t{0};
}

uint64_t ByteStream::file_bytes_read() const { return state_->offset(); }

std::string ByteStream::file_hash() {
  check(state_->file_ended, "byte_stream: file_hash before the end of {}", state_->file.path());
  return state_->hasher.hex();
}

}  // namespace ferry::data
