#include "checkpoint/gguf.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/json.h"

namespace ferry {
namespace {

static_assert(std::endian::native == std::endian::little,
              "GGUF data is used as it lies in the file");

constexpr uint64_t kAlignmentDefault = 32;
constexpr uint64_t kNameMax = 65535;  // the format's limit for keys; far above any tensor's name

enum ValueType : uint32_t {  // as numbered in files
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kText,
  kList,
  kU64,
  kI64,
  kF64,
};

size_t width_of(uint32_t type) {  // of a value of fixed width; 0: it has none
  switch (type) {
    case kU8:
    case kI8:
    case kBool: return 1;
    case kU16:
    case kI16: return 2;
    case kU32:
    case kI32:
    case kF32: return 4;
    case kU64:
    case kI64:
    case kF64: return 8;
    default: return 0;
  }
}

/// Reads the header front to back and never past the end.
class Reader {
 public:
  Reader(std::span<const std::byte> file, const std::string& path) : file_(file), path_(path) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  template <class T>
  Result<T> fixed(const char* what) {
    if (left() < sizeof(T)) return cut_short(what);
    T v;
    std::memcpy(&v, file_.data() + at_, sizeof v);
    at_ += sizeof v;
    return v;
  }

  Result<std::string> text(const char* what, uint64_t most) {
    TRY_ASSIGN(const uint64_t size, fixed<uint64_t>(what));
    if (size > left()) return cut_short(what);
    if (size > most)
      return fail(Code::kCorrupt,
                  "{}: {} at byte {} is {} bytes long; at most {} are allowed",
                  path_,
                  what,
                  at_,
                  size,
                  most);
    std::string s(reinterpret_cast<const char*>(file_.data() + at_), size);
    at_ += size;
    return s;
  }

  Result<GgufValue> value(const std::string& key) {
    TRY_ASSIGN(const uint32_t type, fixed<uint32_t>("a value's type"));
    if (type == kList) return list(key);
    return single(type, key);
  }

 private:
  tl::unexpected<Status> cut_short(const char* what) const {
    return fail(Code::kCorrupt,
                "{}: the file ends at byte {}, within {} that begins at byte {}: it is cut short; "
                "copy or download it again",
                path_,
                file_.size(),
                what,
                at_);
  }

  tl::unexpected<Status> no_type(uint32_t type, const std::string& key) const {
    return fail(Code::kCorrupt,
                "{}: {} has the type {}, which GGUF does not have",
                path_,
                printable(key),
                type);
  }

  Result<int64_t> whole(uint32_t type, const std::string& key) {
    const char* what = "a value";
    switch (type) {
      case kU8: return fixed<uint8_t>(what);
      case kI8: return fixed<int8_t>(what);
      case kU16: return fixed<uint16_t>(what);
      case kI16: return fixed<int16_t>(what);
      case kU32: return fixed<uint32_t>(what);
      case kI32: return fixed<int32_t>(what);
      case kI64: return fixed<int64_t>(what);
      default: break;
    }
    TRY_ASSIGN(const uint64_t v, fixed<uint64_t>(what));
    if (v > static_cast<uint64_t>(INT64_MAX))
      return fail(Code::kInvalidInput, "{}: {} is {}, beyond 63 bits", path_, printable(key), v);
    return static_cast<int64_t>(v);
  }

  Result<bool> truth(const std::string& key) {
    TRY_ASSIGN(const uint8_t v, fixed<uint8_t>("a value"));
    if (v > 1)
      return fail(Code::kCorrupt, "{}: {} is {}, neither true nor false", path_, printable(key), v);
    return v == 1;
  }

  Result<double> real(uint32_t type) {
    if (type == kF64) return fixed<double>("a value");
    TRY_ASSIGN(const float v, fixed<float>("a value"));
    return static_cast<double>(v);
  }

  Result<GgufValue> single(uint32_t type, const std::string& key) {
    if (type == kText) {
      TRY_ASSIGN(std::string v, text("a text", left()));
      return GgufValue(std::move(v));
    }
    if (width_of(type) == 0) return no_type(type, key);
    if (type == kBool) {
      TRY_ASSIGN(const bool v, truth(key));
      return GgufValue(v);
    }
    if (type == kF32 || type == kF64) {
      TRY_ASSIGN(const double v, real(type));
      return GgufValue(v);
    }
    TRY_ASSIGN(const int64_t v, whole(type, key));
    return GgufValue(v);
  }

  /// Lists of lists exist in the format, but nobody writes them.
  Result<GgufValue> list(const std::string& key) {
    TRY_ASSIGN(const uint32_t type, fixed<uint32_t>("a list's type"));
    TRY_ASSIGN(const uint64_t count, fixed<uint64_t>("a list's length"));
    if (type == kList)
      return fail(Code::kInvalidInput,
                  "{}: {} is a list of lists, which Ferry does not read",
                  path_,
                  printable(key));
    const size_t width = type == kText ? sizeof(uint64_t) : width_of(type);
    if (width == 0) return no_type(type, key);
    if (count > left() / width)
      return fail(Code::kCorrupt,
                  "{}: {} announces {} elements; {} bytes are left in the file",
                  path_,
                  printable(key),
                  count,
                  left());
    if (type == kText) return elements<std::string>(count, [&] { return text("a text", left()); });
    if (type == kBool) return elements<bool>(count, [&] { return truth(key); });
    if (type == kF32 || type == kF64) return elements<double>(count, [&] { return real(type); });
    return elements<int64_t>(count, [&] { return whole(type, key); });
  }

  template <class T, class Next>
  Result<GgufValue> elements(uint64_t count, Next&& next) {
    std::vector<T> list;
    list.reserve(static_cast<size_t>(count));
    for (uint64_t i = 0; i < count; ++i) {
      TRY_ASSIGN(T v, next());
      list.push_back(std::move(v));
    }
    return GgufValue(std::move(list));
  }

  std::span<const std::byte> file_;
  const std::string& path_;
  uint64_t at_ = 0;
};

Result<GgufTensor> read_tensor(Reader& in, const std::string& path) {
  GgufTensor t;
  TRY_ASSIGN(t.name, in.text("a tensor's name", kNameMax));
  const std::string who = printable(t.name);
  TRY_ASSIGN(const uint32_t rank, in.fixed<uint32_t>("a tensor's rank"));
  if (rank < 1 || rank > static_cast<uint32_t>(kRankMax))
    return fail(Code::kCorrupt,
                "{}: {} has {} dimensions; 1 to {} are possible",
                path,
                who,
                rank,
                kRankMax);
  std::vector<int64_t> dims(rank);
  uint64_t elements = 1;
  for (auto d = dims.rbegin(); d != dims.rend(); ++d) {
    TRY_ASSIGN(const uint64_t n, in.fixed<uint64_t>("a tensor's size"));
    if (n == 0 || __builtin_mul_overflow(elements, n, &elements) || elements > (uint64_t{1} << 60))
      return fail(Code::kCorrupt,
                  "{}: {} has a dimension of {}: empty, or beyond 2^60 elements",
                  path,
                  who,
                  n);
    *d = static_cast<int64_t>(n);
  }
  t.shape = Shape(dims);
  TRY_ASSIGN(const uint32_t number, in.fixed<uint32_t>("a tensor's type"));
  const std::optional<GgufType> type = gguf_type(number);
  if (!type) {
    if (const char* name = gguf_type_not_decoded(number))
      return fail(Code::kInvalidInput,
                  "{}: {} is stored as {}, which Ferry does not decode; it reads F32, F16, BF16, "
                  "Q4_0, Q4_1, "
                  "Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K. Take the model in one of these",
                  path,
                  who,
                  name);
    return fail(Code::kCorrupt,
                "{}: {} has the element type {}, which GGUF does not have",
                path,
                who,
                number);
  }
  t.type = *type;
  const GgufBlock block = block_of(t.type);
  if (dims.back() % block.elements != 0)
    return fail(Code::kCorrupt,
                "{}: {} is {} with rows of {} elements, not a multiple of the block of {}",
                path,
                who,
                to_string(t.type),
                dims.back(),
                block.elements);
  // Below 2^60 elements of at most 4 bytes: fits.
  t.bytes = elements / static_cast<uint64_t>(block.elements) * static_cast<uint64_t>(block.bytes);
  TRY_ASSIGN(t.begin, in.fixed<uint64_t>("a tensor's place"));
  return t;
}

Result<uint64_t> alignment_of(const std::map<std::string, GgufValue, std::less<>>& values,
                              const std::string& path) {
  const auto it = values.find("general.alignment");
  if (it == values.end()) return kAlignmentDefault;
  const int64_t* v = std::get_if<int64_t>(&it->second);
  if (v == nullptr || *v < 8 || *v > (1 << 20) || !std::has_single_bit(static_cast<uint64_t>(*v)))
    return fail(
        Code::kCorrupt, "{}: \"general.alignment\" must be a power of two from 8 to 2^20", path);
  return static_cast<uint64_t>(*v);
}

/// Turns places within the data section into places within the file, and checks them.
Result<void> place_tensors(std::map<std::string, GgufTensor, std::less<>>& tensors,
                           uint64_t data_begin,
                           uint64_t alignment,
                           uint64_t file_bytes,
                           const std::string& path) {
  std::vector<const GgufTensor*> by_place;
  for (auto& [name, t] : tensors) {
    if (t.begin % alignment != 0)
      return fail(Code::kCorrupt,
                  "{}: {} begins at {} of the data, not a multiple of the alignment {}",
                  path,
                  printable(name),
                  t.begin,
                  alignment);
    uint64_t begin, end;
    if (__builtin_add_overflow(t.begin, data_begin, &begin) ||
        __builtin_add_overflow(begin, t.bytes, &end) || end > file_bytes)
      return fail(
          Code::kCorrupt,
          "{}: {} takes {} bytes from {} of the data on; the file ends at byte {}: it is cut "
          "short or damaged; copy or download it again",
          path,
          printable(name),
          t.bytes,
          t.begin,
          file_bytes);
    t.begin = begin;
    by_place.push_back(&t);
  }
  std::sort(by_place.begin(), by_place.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return a->begin < b->begin;
  });
  for (size_t i = 1; i < by_place.size(); ++i)
    if (by_place[i - 1]->begin + by_place[i - 1]->bytes > by_place[i]->begin)
      return fail(Code::kCorrupt,
                  "{}: {} and {} lie over each other",
                  path,
                  printable(by_place[i - 1]->name),
                  printable(by_place[i]->name));
  return {};
}

}  // namespace

std::vector<std::string> gguf_files(const std::string& path) {
  // "...-00001-of-00003.gguf"
  constexpr std::string_view kFirst = "-00001-of-", kEnding = ".gguf";
  constexpr size_t kDigits = 5, kTail = kFirst.size() + kDigits + kEnding.size();
  if (path.size() < kTail || !path.ends_with(kEnding)) return {path};
  const std::string stem = path.substr(0, path.size() - kTail);
  const std::string_view tail = std::string_view(path).substr(stem.size());
  int count = 0;
  const char* const digits = tail.data() + kFirst.size();
  const auto [end, error] = std::from_chars(digits, digits + kDigits, count);
  if (!tail.starts_with(kFirst) || error != std::errc() || end != digits + kDigits || count < 1)
    return {path};
  std::vector<std::string> files;
  for (int i = 1; i <= count; ++i)
    files.push_back(fmt::format("{}-{:05}-of-{:05}.gguf", stem, i, count));
  return files;
}

Result<GgufFile> GgufFile::open(const std::string& path) {
  TRY_ASSIGN(GgufFile file, map_part(path));
  TRY_ASSIGN(const int64_t count, file.split_value("split.count", 1));
  if (count <= 1) return file;
  TRY_ASSIGN(const int64_t number, file.split_value("split.no", 0));
  const std::vector<std::string> files = gguf_files(path);
  if (number != 0)
    return fail(Code::kInvalidInput,
                "{}: is file {} of {} that make one model; name the first (its name ends in "
                "-00001-of-{:05}.gguf)",
                path,
                number + 1,
                count,
                count);
  if (std::ssize(files) != count)
    return fail(
        Code::kInvalidInput,
        "{}: is the first of {} files that make one model, and not called so: its name must end in "
        "-00001-of-{:05}.gguf and the others lie beside it; or join them (llama-gguf-split "
        "--merge)",
        path,
        count,
        count);
  TRY(file.add_others(files));
  return file;
}

Result<GgufFile> GgufFile::map_part(const std::string& path) {
  TRY_ASSIGN(MappedFile mapped, MappedFile::open(path));
  auto shared = std::make_shared<const MappedFile>(std::move(mapped));
  TRY_ASSIGN(GgufFile file, parse_part(shared->bytes(), path));
  file.parts_[0].mapped = std::move(shared);
  return file;
}

Result<int64_t> GgufFile::split_value(const char* key, int64_t otherwise) const {
  constexpr int64_t kMost = int64_t{1} << 31;
  return has(key) ? integer(key, 0, kMost) : Result<int64_t>(otherwise);
}

/// The tensors of the others; what their headers say beside how they belong together is not read, as by llama.cpp.
Result<void> GgufFile::add_others(const std::vector<std::string>& files) {
  for (size_t i = 1; i < files.size(); ++i) {
    TRY_ASSIGN(const bool there, is_there(files[i]));
    if (!there)
      return fail(Code::kNotFound,
                  "{}: is missing, file {} of {} that make one model; fetch it, too",
                  files[i],
                  i + 1,
                  files.size());
    TRY_ASSIGN(const GgufFile other, map_part(files[i]));
    TRY_ASSIGN(const int64_t number, other.split_value("split.no", 0));
    TRY_ASSIGN(const int64_t count, other.split_value("split.count", 1));
    if (number != static_cast<int64_t>(i) || count != std::ssize(files))
      return fail(Code::kCorrupt,
                  "{}: calls itself file {} of {}, not {} of {}; fetch it again",
                  files[i],
                  number + 1,
                  count,
                  i + 1,
                  files.size());
    for (const auto& [name, tensor] : other.tensors_) {
      const auto [it, fresh] = tensors_.emplace(name, tensor);
      if (!fresh)
        return fail(Code::kCorrupt,
                    "{}: the tensor {} is in {} as well",
                    files[i],
                    printable(name),
                    files[it->second.part]);
      it->second.part = i;
    }
    parts_.push_back(other.parts_[0]);
  }
  TRY_ASSIGN(const int64_t tensors, split_value("split.tensors.count", std::ssize(tensors_)));
  if (tensors == std::ssize(tensors_)) return {};
  return fail(Code::kCorrupt,
              "{}: announces {} tensors in {} files, which hold {}; fetch them again",
              path_,
              tensors,
              files.size(),
              tensors_.size());
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string path) {
  TRY_ASSIGN(GgufFile file, parse_part(bytes, std::move(path)));
  TRY_ASSIGN(const int64_t count, file.split_value("split.count", 1));
  if (count <= 1) return file;
  return fail(
      Code::kInvalidInput,
      "{}: is one of {} files that make one model; join them first (llama-gguf-split --merge)",
      file.path_,
      count);
}

Result<GgufFile> GgufFile::parse_part(std::span<const std::byte> bytes, std::string path) {
  GgufFile file;
  file.path_ = std::move(path);
  file.parts_.push_back({nullptr, bytes, file.path_});
  const std::string& p = file.path_;
  Reader in(bytes, p);
  TRY_ASSIGN(const uint32_t magic, in.fixed<uint32_t>("the magic number"));
  if (magic != 0x46554747)  // "GGUF"
    return fail(Code::kCorrupt, "{}: is not a GGUF file: it does not begin with \"GGUF\"", p);
  TRY_ASSIGN(const uint32_t version, in.fixed<uint32_t>("the version"));
  if (version == 0x02000000 || version == 0x03000000)
    return fail(
        Code::kInvalidInput, "{}: is a big-endian GGUF file; Ferry reads little-endian ones", p);
  if (version != 2 && version != 3)
    return fail(Code::kInvalidInput, "{}: is GGUF version {}; Ferry reads 2 and 3", p, version);
  TRY_ASSIGN(const uint64_t tensors, in.fixed<uint64_t>("the number of tensors"));
  TRY_ASSIGN(const uint64_t values, in.fixed<uint64_t>("the number of values"));
  // A tensor takes 24 bytes of the header at the least, a value 13.
  if (tensors > bytes.size() / 24 || values > bytes.size() / 13)
    return fail(Code::kCorrupt,
                "{}: announces {} tensors and {} values, more than fit into its {} bytes",
                p,
                tensors,
                values,
                bytes.size());
  for (uint64_t i = 0; i < values; ++i) {
    TRY_ASSIGN(std::string key, in.text("a key", kNameMax));
    TRY_ASSIGN(GgufValue value, in.value(key));
    if (!file.values_.emplace(key, std::move(value)).second)
      return fail(Code::kCorrupt, "{}: the value {} is given twice", p, printable(key));
  }
  for (uint64_t i = 0; i < tensors; ++i) {
    TRY_ASSIGN(GgufTensor t, read_tensor(in, p));
    std::string name = t.name;
    if (!file.tensors_.emplace(name, std::move(t)).second)
      return fail(Code::kCorrupt, "{}: the tensor {} is given twice", p, printable(name));
  }
  TRY_ASSIGN(const uint64_t alignment, alignment_of(file.values_, p));
  const uint64_t data_begin = (in.at() + alignment - 1) / alignment * alignment;
  TRY(place_tensors(file.tensors_, data_begin, alignment, bytes.size(), p));
  return file;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& t) const {
  return parts_[t.part].bytes.subspan(t.begin, t.bytes);
}

std::vector<std::span<const std::byte>> GgufFile::all_bytes() const {
  std::vector<std::span<const std::byte>> all;
  for (const Part& p : parts_) all.push_back(p.bytes);
  return all;
}

std::vector<std::string> GgufFile::files() const {
  std::vector<std::string> all;
  for (const Part& p : parts_) all.push_back(p.path);
  return all;
}

Result<int64_t> GgufFile::integer(std::string_view key, int64_t low, int64_t high) const {
  TRY_ASSIGN(const int64_t v, value<int64_t>(key, "a whole number"));
  if (v < low || v > high)
    return fail(Code::kInvalidInput,
                "{}: the value \"{}\" is {}; it must be from {} to {}",
                path_,
                key,
                v,
                low,
                high);
  return v;
}

Result<double> GgufFile::number(std::string_view key) const {
  TRY_ASSIGN(const double v, value<double>(key, "a floating-point number"));
  if (!std::isfinite(v))
    return fail(Code::kInvalidInput, "{}: the value \"{}\" is not a finite number", path_, key);
  return v;
}

Result<std::string> GgufFile::text(std::string_view key) const {
  return value<std::string>(key, "a text");
}

}  // namespace ferry
