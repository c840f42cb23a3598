#include "data/byte_stream.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "base/check.h"
#include "base/hash.h"
#include "base/input_file.h"

namespace ferry::data {
namespace {

constexpr size_t kInputBytes = size_t{256} << 10;
constexpr int kZstdWindowLogMax = 27;  // 128 MiB: what zstd itself reads without --long
constexpr size_t kLayersMax = 3;       // of compression: more is a bomb, or a mistake

constexpr std::string_view kGzipMagic("\x1F\x8B", 2);
constexpr std::string_view kZstdMagic("\x28\xB5\x2F\xFD", 4);

/// A frame that decoders of zstd pass over; parallel compressors begin a file with one.
bool is_skippable_frame(std::string_view head) {
  return head.size() >= 8 && (static_cast<unsigned char>(head[0]) & 0xF0) == 0x50 &&
         head.substr(1, 3) == std::string_view("\x2A\x4D\x18", 3);
}
bool is_zstd(std::string_view head) {
  return head.starts_with(kZstdMagic) || is_skippable_frame(head);
}

/// The file, or bytes in its place: counted and hashed.
class Source {
 public:
  explicit Source(InputFile file) : path_(file.path()), file_(std::move(file)) {}
  Source(std::string path, std::string bytes) : path_(std::move(path)), bytes_(std::move(bytes)) {}

  Result<size_t> read(char* out, size_t size) {
    size_t n = std::min(size, bytes_.size() - given_);
    if (file_) {
      TRY_ASSIGN(n, file_->read(out, size));
    } else if (n > 0) {
      std::memcpy(out, bytes_.data() + given_, n);
    }
    given_ += file_ ? 0 : n;
    count_ += n;
    ended_ = ended_ || n == 0;
    hasher_.update(out, n);
    return n;
  }

  const std::string& path() const { return path_; }
  uint64_t count() const { return count_; }
  std::string hash() {
    check(ended_, "byte_stream: file_hash before the end of {}", path_);
    return hasher_.hex();
  }

 private:
  std::string path_;
  std::optional<InputFile> file_;
  std::string bytes_;
  size_t given_ = 0;
  uint64_t count_ = 0;
  bool ended_ = false;
  Hasher hasher_;
};

/// Bytes of one layer, read ahead of what has been used of them.
class Layer {
 public:
  virtual ~Layer() = default;

  std::string_view ahead() const { return {input_.data() + begin_, end_ - begin_}; }
  void use(size_t n) { begin_ += n; }

  /// Reads more once all is used.
  Result<void> refill() {
    if (begin_ < end_ || ended_) return {};
    begin_ = end_ = 0;
    return append();
  }
  /// Reads until `size` bytes lie ahead, or all there are. Before any use().
  Result<void> look_ahead(size_t size) {
    while (end_ < size && !ended_) TRY(append());
    return {};
  }

 protected:
  virtual Result<size_t> produce(char* out, size_t size) = 0;

 private:
  Result<void> append() {
    TRY_ASSIGN(const size_t n, produce(input_.data() + end_, input_.size() - end_));
    end_ += n;
    ended_ = n == 0;
    return {};
  }

  std::vector<char> input_ = std::vector<char>(kInputBytes);
  size_t begin_ = 0, end_ = 0;  // of what is not yet used of input_
  bool ended_ = false;
};

class FileLayer : public Layer {
 public:
  explicit FileLayer(Source& source) : source_(source) {}

 private:
  Result<size_t> produce(char* out, size_t size) override { return source_.read(out, size); }
  Source& source_;
};

/// What the layers of compression share: where they read from, and how damage is told.
class Decoder : public Layer {
 public:
  Decoder(Source& source, Layer& in) : source_(source), in_(in) {}

 protected:
  template <typename... Args>
  tl::unexpected<Status> corrupt(fmt::format_string<Args...> what, Args&&... args) const {
    return fail(Code::kCorrupt,
                "{}: {} (near byte {} of the file); fetch or make the file again",
                source_.path(),
                fmt::format(what, std::forward<Args>(args)...),
                source_.count() - in_.ahead().size());
  }
  Source& source_;
  Layer& in_;
  bool in_member_ = false;  // inside a gzip member or zstd frame
};

class GzipLayer : public Decoder {
 public:
  GzipLayer(Source& source, Layer& in) : Decoder(source, in) {
    check(inflateInit2(&gzip_, MAX_WBITS + 16) == Z_OK, "byte_stream: zlib cannot be started");
  }
  ~GzipLayer() override { inflateEnd(&gzip_); }
  GzipLayer(const GzipLayer&) = delete;
  GzipLayer& operator=(const GzipLayer&) = delete;

 private:
  Result<size_t> produce(char* out, size_t size) override {
    gzip_.next_out = reinterpret_cast<Bytef*>(out);
    gzip_.avail_out = static_cast<uInt>(size);
    while (gzip_.avail_out == size) {
      TRY(in_.refill());
      const std::string_view ahead = in_.ahead();
      if (ahead.empty()) {
        if (in_member_) return corrupt("the gzip data is cut short");
        return size_t{0};
      }
      if (!in_member_) {
        // After a member: another one, zeros that pad to a block, or nothing that belongs here.
        if (members_ > 0 && ahead[0] == '\0') {
          in_.use(1);
          continue;
        }
        if (members_ > 0 && ahead[0] != kGzipMagic[0])
          return corrupt("bytes that are not gzip after its end");
        check(inflateReset(&gzip_) == Z_OK, "byte_stream: zlib cannot be reset");
        in_member_ = true;
      }
      gzip_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(ahead.data()));
      gzip_.avail_in = static_cast<uInt>(ahead.size());
      const int code = inflate(&gzip_, Z_NO_FLUSH);
      in_.use(ahead.size() - gzip_.avail_in);
      if (code == Z_STREAM_END) {
        in_member_ = false;
        ++members_;
      } else if (code == Z_MEM_ERROR) {
        return fail(Code::kExhausted, "{}: no memory to decompress it", source_.path());
      } else if (code != Z_OK && code != Z_BUF_ERROR) {
        return corrupt("the gzip data is damaged: {}",
                       gzip_.msg != nullptr ? gzip_.msg : "unknown error");
      }
    }
    return size - gzip_.avail_out;
  }

  z_stream gzip_{};
  uint64_t members_ = 0;
};

class ZstdLayer : public Decoder {
 public:
  ZstdLayer(Source& source, Layer& in) : Decoder(source, in), zstd_(ZSTD_createDCtx()) {
    check(zstd_ != nullptr, "byte_stream: zstd cannot be started");
    ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax, kZstdWindowLogMax);
  }
  ~ZstdLayer() override { ZSTD_freeDCtx(zstd_); }
  ZstdLayer(const ZstdLayer&) = delete;
  ZstdLayer& operator=(const ZstdLayer&) = delete;

 private:
  Result<size_t> produce(char* out, size_t size) override {
    ZSTD_outBuffer output{out, size, 0};
    while (output.pos == 0) {
      TRY(in_.refill());
      // At the end of the file the decoder may still hold output: ask it once more, with no input.
      const std::string_view ahead = in_.ahead();
      ZSTD_inBuffer in{ahead.data(), ahead.size(), 0};
      const bool at_end = ahead.empty();
      if (at_end && !in_member_) return size_t{0};
      const size_t code = ZSTD_decompressStream(zstd_, &output, &in);
      in_.use(in.pos);
      if (ZSTD_isError(code)) return damaged(code);
      in_member_ = code != 0;
      if (at_end && in_member_ && output.pos == 0) return corrupt("the zstd data is cut short");
    }
    return output.pos;
  }

  tl::unexpected<Status> damaged(size_t code) const {
    const ZSTD_ErrorCode kind = ZSTD_getErrorCode(code);
    if (kind == ZSTD_error_frameParameter_windowTooLarge)
      return fail(Code::kInvalidInput,
                  "{}: its zstd window is larger than {} MiB, which would have to be held in "
                  "memory; compress it again without --long: zstd -dc --long=31 FILE | zstd > NEW",
                  source_.path(),
                  (size_t{1} << kZstdWindowLogMax) >> 20);
    if (kind == ZSTD_error_memory_allocation)
      return fail(Code::kExhausted, "{}: no memory to decompress it", source_.path());
    if (kind == ZSTD_error_dictionary_wrong)
      return fail(Code::kInvalidInput,
                  "{}: was compressed with a zstd dictionary; decompress it first: zstd -d -D "
                  "DICTIONARY FILE",
                  source_.path());
    return corrupt("the zstd data cannot be read: {}", ZSTD_getErrorName(code));
  }

  ZSTD_DCtx* zstd_;
};

}  // namespace

struct ByteStream::State {
  explicit State(Source s) : source(std::move(s)) {}
  Source source;
  std::vector<std::unique_ptr<Layer>> layers;  // the file, then what is around what
  std::string packing;
};

ByteStream::ByteStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
ByteStream::ByteStream(ByteStream&&) noexcept = default;
ByteStream& ByteStream::operator=(ByteStream&&) noexcept = default;
ByteStream::~ByteStream() = default;

Result<ByteStream> ByteStream::open(const std::string& path) {
  TRY_ASSIGN(InputFile file, InputFile::open(path));
  TRY_ASSIGN(ByteStream stream, unpack(std::make_unique<State>(Source(std::move(file)))));
  if (stream.packing().empty() &&
      (path.ends_with(".gz") || path.ends_with(".dz") || path.ends_with(".zst")))
    return fail(Code::kCorrupt,
                "{}: its name says compressed, but it begins neither as gzip nor as zstd; "
                "fetch or make the file again, or rename it",
                path);
  return stream;
}

Result<ByteStream> ByteStream::standard_input() {
  return unpack(std::make_unique<State>(Source(InputFile::standard_input())));
}

Result<ByteStream> ByteStream::of(std::string bytes, const std::string& path) {
  return unpack(std::make_unique<State>(Source(path, std::move(bytes))));
}

Result<ByteStream> ByteStream::unpack(std::unique_ptr<State> state) {
  std::vector<std::unique_ptr<Layer>>& layers = state->layers;
  layers.push_back(std::make_unique<FileLayer>(state->source));
  for (;;) {
    Layer& top = *layers.back();
    TRY(top.look_ahead(kHeadBytes));
    const bool gzip = top.ahead().starts_with(kGzipMagic);
    if (!gzip && !is_zstd(top.ahead())) break;
    if (layers.size() > kLayersMax)
      return fail(Code::kInvalidInput,
                  "{}: is compressed more than {} times over; decompress it first",
                  state->source.path(),
                  kLayersMax);
    if (gzip)
      layers.push_back(std::make_unique<GzipLayer>(state->source, top));
    else
      layers.push_back(std::make_unique<ZstdLayer>(state->source, top));
    const std::string around = state->packing;
    state->packing = gzip ? "gzip" : "zstd";
    if (!around.empty()) state->packing += " in " + around;
  }
  return ByteStream(std::move(state));
}

std::string_view ByteStream::head() const {
  return state_->layers.back()->ahead().substr(0, kHeadBytes);
}
const std::string& ByteStream::packing() const { return state_->packing; }

Result<size_t> ByteStream::read(char* out, size_t size) {
  Layer& top = *state_->layers.back();
  TRY(top.refill());
  const size_t n = std::min(size, top.ahead().size());
  if (n > 0) std::memcpy(out, top.ahead().data(), n);
  top.use(n);
  return n;
}

const std::string& ByteStream::path() const { return state_->source.path(); }
uint64_t ByteStream::file_bytes_read() const { return state_->source.count(); }
std::string ByteStream::file_hash() { return state_->source.hash(); }

}  // namespace ferry::data
