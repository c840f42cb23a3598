#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "checkpoint/convert.h"
#include "checkpoint/json.h"

namespace ferry {
namespace {

/// What a dtype is that Ferry does not read, and the way out.
std::string about_dtype(const std::string& name) {
  struct Known {
    std::string_view name;
    const char* what;
  };
  constexpr Known kKnown[] = {
      {"F8_E8M0", "scales that are powers of two, of MXFP8, MXFP4 and newer FP8 models"},
      {"F8_E5M2", "float8 with two bits of mantissa"},
      {"F4", "float4, of MXFP4 and NVFP4"},
      {"U16", "codes packed into whole numbers"},
      {"U32", "codes packed into whole numbers, as MLX's are"},
      {"U64", "codes packed into whole numbers"}};
  for (const Known& k : kKnown)
    if (name == k.name)
      return fmt::format(
          "{} ({}) is not read: fetch the model in bf16, or make it so with the program that wrote "
          "this",
          name,
          k.what);
  return printable(name) + " is unknown";
}

static_assert(std::endian::native == std::endian::little,
              "safetensors data is used as it lies in the file");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the format's limit

/// Reads the header's JSON event by event, so that what the format does not allow (a second key of
/// the same name, another type, another level) is refused where it stands.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<TensorInfo> tensors;
  SafetensorsMetadata metadata;
  Status problem{Code::kCorrupt, ""};

  bool null() override {
    return (at_ == At::kTop && name_ == "__metadata__") || unexpected("null");  // as good as none
  }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool binary(binary_t&) override { return unexpected("binary data"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override {
    return unexpected(fmt::format("the number {}", printable(text)));
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (at_ != At::kShape && at_ != At::kOffsets) return unexpected("a number");
    std::vector<uint64_t>& list = at_ == At::kShape ? shape_ : offsets_;
    const size_t most = at_ == At::kShape ? 64 : 2;
    if (list.size() == most)
      return refuse(Code::kCorrupt, fmt::format("{} has more than {} numbers", field_, most));
    list.push_back(value);
    return true;
  }

  bool string(string_t& text) override {
    if (at_ == At::kMetadata) return metadata_value(text);
    if (at_ != At::kTensor || field_ != "dtype")
      return unexpected(fmt::format("the text {}", printable(text)));
    dtype_ = dtype_from_string(text);
    if (!dtype_) return refuse(Code::kCorrupt, "the dtype " + about_dtype(text));
    return true;
  }

  bool start_object(size_t) override {
    if (at_ == At::kStart) {
      at_ = At::kTop;
    } else if (at_ == At::kTop) {
      at_ = name_ == "__metadata__" ? At::kMetadata : At::kTensor;
      dtype_.reset();
      has_shape_ = has_offsets_ = false;
      fields_.clear();
      shape_.clear();
      offsets_.clear();
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(string_t& text) override {
    if (at_ == At::kTop) {
      name_ = text;
      if (name_ != "__metadata__") return true;  // tensors' names are compared when all are known
      if (has_metadata_) return refuse(Code::kCorrupt, "the key occurs twice");
      return has_metadata_ = true;
    }
    field_ = text;
    if (at_ == At::kMetadata) {
      if (metadata.contains(text))
        return refuse(Code::kCorrupt, fmt::format("the key {} occurs twice", printable(text)));
      return true;
    }
    if (field_ != "dtype" && field_ != "shape" && field_ != "data_offsets")
      return refuse(Code::kCorrupt, fmt::format("the key {} is unknown", printable(text)));
    if (std::find(fields_.begin(), fields_.end(), field_) != fields_.end())
      return refuse(Code::kCorrupt, fmt::format("the key {} occurs twice", printable(text)));
    fields_.push_back(field_);
    return true;
  }

  bool end_object() override {
    if (at_ == At::kTensor && !end_tensor()) return false;
    at_ = at_ == At::kTop ? At::kDone : At::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (at_ != At::kTensor) return unexpected("a list");
    if (field_ == "shape") {
      at_ = At::kShape;
      return has_shape_ = true;
    }
    if (field_ == "data_offsets") {
      at_ = At::kOffsets;
      return has_offsets_ = true;
    }
    return unexpected("a list");
  }

  bool end_array() override {
    at_ = At::kTensor;
    return true;
  }

  bool parse_error(size_t position,
                   const std::string&,
                   const nlohmann::detail::exception& e) override {
    problem = {
        Code::kCorrupt,
        fmt::format("the header is not JSON at byte {}: {}", kLengthBytes + position, e.what())};
    return false;
  }

 private:
  enum class At { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kDone };

  bool refuse(Code code, const std::string& what) {
    problem = {code, at_ == At::kStart ? what : fmt::format("{}: {}", printable(name_), what)};
    return false;
  }

  bool unexpected(const std::string& what) {
    const bool in_field = at_ != At::kStart && at_ != At::kTop;
    return refuse(Code::kCorrupt,
                  fmt::format("{} where the format has none{}",
                              what,
                              in_field ? " (" + printable(field_) + ")" : ""));
  }

  bool metadata_value(const std::string& text) {
    metadata.emplace(field_, text);
    return true;
  }

  bool end_tensor() {
    if (!dtype_ || !has_shape_ || !has_offsets_ || offsets_.size() != 2)
      return refuse(Code::kCorrupt, "needs dtype, shape and two data_offsets");
    // Zeros count as one here, so that strides computed from any subset of the dimensions fit, too.
    uint64_t bytes = size_of(*dtype_);
    bool any_zero = false, fits = true;
    for (const uint64_t d : shape_) {
      any_zero |= d == 0;
      fits &= !__builtin_mul_overflow(bytes, std::max<uint64_t>(d, 1), &bytes);
    }
    if (!fits || bytes / size_of(*dtype_) > static_cast<uint64_t>(kElementsMax))
      return refuse(Code::kCorrupt,
                    fmt::format("the shape [{}] is beyond 64 bits", fmt::join(shape_, ", ")));
    if (any_zero) bytes = 0;
    if (offsets_[0] > offsets_[1])
      return refuse(Code::kCorrupt,
                    fmt::format("data_offsets [{}, {}] run backwards", offsets_[0], offsets_[1]));
    if (offsets_[1] - offsets_[0] != bytes)
      return refuse(Code::kCorrupt,
                    fmt::format("data_offsets [{}, {}] hold {} bytes, shape [{}] of {} takes {}",
                                offsets_[0],
                                offsets_[1],
                                offsets_[1] - offsets_[0],
                                fmt::join(shape_, ", "),
                                to_string(*dtype_),
                                bytes));
    if (shape_.size() > static_cast<size_t>(kRankMax))
      return refuse(
          Code::kInvalidInput,
          fmt::format("has {} dimensions; Ferry reads up to {}", shape_.size(), kRankMax));
    const std::vector<int64_t> dims(shape_.begin(), shape_.end());
    tensors.push_back({name_, *dtype_, Shape(dims), offsets_[0], offsets_[1]});
    return true;
  }

  At at_ = At::kStart;
  std::string name_, field_;
  std::vector<std::string> fields_;
  std::optional<DType> dtype_;
  std::vector<uint64_t> shape_, offsets_;
  bool has_shape_ = false, has_offsets_ = false, has_metadata_ = false;
};

/// The tensors must tile [0, data_bytes): no overlap, no hole, nothing outside.
Result<void> check_tiling(const std::vector<TensorInfo>& tensors,
                          uint64_t data_bytes,
                          const std::string& path) {
  std::vector<const TensorInfo*> by_place;
  by_place.reserve(tensors.size());
  for (const TensorInfo& t : tensors) by_place.push_back(&t);
  std::sort(by_place.begin(), by_place.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t covered = 0;
  for (const TensorInfo* t : by_place) {
    if (t->end > data_bytes)
      return fail(Code::kCorrupt,
                  "{}: {}: data_offsets [{}, {}] end behind the {} bytes of data; the file is cut "
                  "short or damaged, "
                  "fetch it again",
                  path,
                  printable(t->name),
                  t->begin,
                  t->end,
                  data_bytes);
    if (t->begin != covered)
      return fail(Code::kCorrupt,
                  "{}: {}: data_offsets [{}, {}] {} byte {}, where the data before end",
                  path,
                  printable(t->name),
                  t->begin,
                  t->end,
                  t->begin < covered ? "overlap the data before" : "leave a hole from",
                  covered);
    covered = t->end;
  }
  if (covered != data_bytes)
    return fail(Code::kCorrupt,
                "{}: {} bytes of data, but the tensors end at {}",
                path,
                data_bytes,
                covered);
  return {};
}

/// What torch.save writes: a zip archive, or a pickle by itself as before PyTorch 1.6.
bool is_pytorchs(std::string_view file) {
  return file.starts_with("PK\x03\x04") || file.starts_with("\x80\x02\x8a\nl\xfc\x9c");
}

bool by_name(const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; }

Result<std::string> header_text(const std::vector<TensorInfo>& layout,
                                const SafetensorsMetadata& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      TRY_ASSIGN(const std::string k, json_quoted(key));
      TRY_ASSIGN(const std::string v, json_quoted(value));
      text += fmt::format("{}{}:{}", text.back() == '{' ? "" : ",", k, v);
    }
    text += "}";
  }
  for (const TensorInfo& t : layout) {
    TRY_ASSIGN(const std::string name, json_quoted(t.name));
    std::string shape;
    for (int d = 0; d < t.shape.rank(); ++d)
      shape += fmt::format("{}{}", d == 0 ? "" : ",", t.shape[d]);
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        text.size() == 1 ? "" : ",",
                        name,
                        to_string(t.dtype),
                        shape,
                        t.begin,
                        t.end);
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  TRY_ASSIGN(MappedFile mapped, MappedFile::open(path));
  auto owner = std::make_shared<const MappedFile>(std::move(mapped));
  TRY_ASSIGN(SafetensorsFile file, parse(owner->bytes(), path));
  file.mapped_ = std::move(owner);
  return file;
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes, std::string path) {
  if (bytes.size() < kLengthBytes)
    return fail(
        Code::kCorrupt, "{}: {} bytes, too short for a safetensors file", path, bytes.size());
  if (is_pytorchs({reinterpret_cast<const char*>(bytes.data()), kLengthBytes}))
    return fail(Code::kInvalidInput,
                "{}: is a file of PyTorch's (torch.save), whatever its name says, not safetensors: "
                "save the model "
                "again with save_pretrained(safe_serialization=True)",
                path);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kHeaderBytesMax)
    return fail(
        Code::kCorrupt,
        "{}: bytes 0-7 give a header of {} bytes, above the format's {}; is it safetensors?",
        path,
        length,
        kHeaderBytesMax);
  if (length > bytes.size() - kLengthBytes)
    return fail(Code::kCorrupt,
                "{}: the header ends at byte {}, the file at {}; it is cut short, fetch it again",
                path,
                kLengthBytes + length,
                bytes.size());
  const char* header = reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  if (length == 0 || header[0] != '{')
    return fail(Code::kCorrupt, "{}: byte 8 does not open a JSON object", path);

  if (const size_t at = zero_byte({header, length}); at != std::string_view::npos)
    return fail(Code::kCorrupt, "{}: the header is not JSON: byte {} of it is zero", path, at + 1);
  HeaderReader reader;
  bool whole = false;
  try {
    whole = nlohmann::json::sax_parse(header, header + length, &reader);
  } catch (const nlohmann::json::exception& e) {
    return fail(Code::kCorrupt, "{}: the header is not JSON: {}", path, e.what());
  }
  if (!whole) return fail(reader.problem.code, "{}: {}", path, reader.problem.message);

  SafetensorsFile file;
  file.path_ = std::move(path);
  file.file_ = bytes;
  file.data_ = bytes.subspan(kLengthBytes + length);
  file.tensors_ = std::move(reader.tensors);
  file.metadata_ = std::move(reader.metadata);
  std::sort(file.tensors_.begin(), file.tensors_.end(), by_name);
  for (size_t i = 1; i < file.tensors_.size(); ++i)
    if (file.tensors_[i].name == file.tensors_[i - 1].name)
      return fail(
          Code::kCorrupt, "{}: {} occurs twice", file.path_, printable(file.tensors_[i].name));
  TRY(check_tiling(file.tensors_, file.data_.size(), file.path_));
  return file;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto it = std::lower_bound(
      tensors_.begin(), tensors_.end(), name, [](const TensorInfo& t, std::string_view n) {
        return t.name < n;
      });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

Result<Tensor> SafetensorsFile::load(std::string_view name, Device& device) const {
  const TensorInfo* info = find(name);
  if (info == nullptr) return fail(Code::kNotFound, "{}: has no tensor {}", path_, printable(name));
  Tensor tensor = Tensor::empty(info->shape, info->dtype, device);
  fill_from(tensor, info->dtype, bytes(*info));
  return tensor;
}

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& path,
                                                    std::vector<TensorDecl> tensors,
                                                    const SafetensorsMetadata& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorDecl& a, const TensorDecl& b) {
    return std::pair(size_of(b.dtype), std::string_view(a.name)) <
           std::pair(size_of(a.dtype), std::string_view(b.name));
  });
  std::vector<TensorInfo> layout;
  uint64_t at = 0;
  for (const TensorDecl& t : tensors) {
    const uint64_t bytes = static_cast<uint64_t>(t.shape.count()) * size_of(t.dtype);
    layout.push_back({t.name, t.dtype, t.shape, at, at + bytes});
    at += bytes;
  }
  std::vector<std::string_view> names;
  for (const TensorInfo& t : layout) names.push_back(t.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  check(twice == names.end(),
        "safetensors: {} is declared twice",
        twice == names.end() ? "" : *twice);
  check(!std::binary_search(names.begin(), names.end(), "__metadata__"),
        "safetensors: a tensor named __metadata__");

  TRY_ASSIGN(const std::string header, header_text(layout, metadata));
  if (header.size() > kHeaderBytesMax)
    return fail(Code::kInvalidInput,
                "{}: a header of {} bytes for {} tensors is above the format's {}; use more shards",
                path,
                header.size(),
                layout.size(),
                kHeaderBytesMax);
  TRY_ASSIGN(FileWriter out, FileWriter::create(path));
  SafetensorsWriter writer(std::move(out));
  writer.layout_ = std::move(layout);
  const uint64_t length = header.size();
  TRY(writer.put(&length, sizeof length));
  TRY(writer.put(header.data(), header.size()));
  return writer;
}

Result<void> SafetensorsWriter::put(const void* data, size_t size) {
  hasher_.update(data, size);
  return out_.write(data, size);
}

Result<void> SafetensorsWriter::write(std::string_view tensor, std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  const auto whole = [&] {
    return current_bytes_ == layout_[current_].end - layout_[current_].begin;
  };
  while (current_ < layout_.size() && whole()) {
    ++current_;
    current_bytes_ = 0;
  }
  check(current_ < layout_.size() && layout_[current_].name == tensor,
        "safetensors: {} is not next to be written",
        tensor);
  current_bytes_ += bytes.size();
  check(current_bytes_ <= layout_[current_].end - layout_[current_].begin,
        "safetensors: {} is given more than its size",
        tensor);
  return put(bytes.data(), bytes.size());
}

Result<FileDigest> SafetensorsWriter::finish() {
  for (size_t i = current_; i < layout_.size(); ++i)
    check(layout_[i].end - layout_[i].begin == (i == current_ ? current_bytes_ : 0),
          "safetensors: {} was not written whole",
          layout_[i].name);
  TRY(out_.sync());
  TRY(out_.close());
  return FileDigest{.bytes = out_.bytes_written(), .blake2b = hasher_.hex()};
}

Result<FileDigest> write_safetensors(const std::string& path,
                                     std::span<const NamedTensor> tensors,
                                     const SafetensorsMetadata& metadata) {
  std::vector<TensorDecl> declared;
  std::map<std::string_view, const NamedTensor*> by_its_name;
  for (const NamedTensor& t : tensors) {
    declared.push_back({t.name, t.type_in_file(), t.shape_in_file()});
    by_its_name[t.name] = &t;
  }
  TRY_ASSIGN(SafetensorsWriter writer,
             SafetensorsWriter::create(path, std::move(declared), metadata));
  for (const TensorInfo& info : writer.layout()) {
    const NamedTensor& t = *by_its_name[info.name];
    Tensor value = t.value;
    if (t.load) {
      TRY_ASSIGN(value, t.load());
    }
    TRY(for_each_piece(value, info.dtype, [&](std::span<const std::byte> piece) {
      return writer.write(info.name, piece);
    }));
  }
  return writer.finish();
}

}  // namespace ferry
