// safetensors files: an untrusted header is believed only after every field of it was checked.
// Format: 8 bytes header length (little-endian), a JSON header, then the tensors' bytes without
// gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "base/result.h"
#include "checkpoint/checksums.h"
#include "tensor/tensor.h"

namespace ferry {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0;  // bytes, from the start of the data section
  uint64_t end = 0;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

/// A file that was checked whole when it was opened; cheap to copy, the copies share the mapping.
/// Thread rule: reading from several threads is fine.
class SafetensorsFile {
 public:
  /// Errors: kNotFound, kUnavailable (cannot be mapped); kCorrupt: header cut short, above 100 MB,
  /// not JSON, with duplicate keys, unknown types, bad shapes, or offsets that overlap, leave a hole
  /// or end elsewhere than the file; kInvalidInput: a well-formed type or rank that Ferry has no
  /// tensors for. Messages name the path, the tensor and the offsets.
  static Result<SafetensorsFile> open(const std::string& path);
  /// The same for bytes in memory, which must outlive the object. `path` is for messages.
  static Result<SafetensorsFile> parse(std::span<const std::byte> file, std::string path);

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // sorted by name
  const SafetensorsMetadata& metadata() const { return metadata_; }
  const TensorInfo* find(std::string_view name) const;  // nullptr: none
  std::span<const std::byte> file_bytes() const { return file_; }
  uint64_t data_begin() const { return file_.size() - data_.size(); }  // where the header ends
  /// The raw elements, little-endian, at no particular alignment.
  std::span<const std::byte> bytes(const TensorInfo& tensor) const {
    return data_.subspan(tensor.begin, tensor.end - tensor.begin);
  }

  /// Lets go of the pages that were read (MappedFile::release).
  void release() const {
    if (mapped_ != nullptr) mapped_->release();
  }

  /// A copy on the device, of the file's type. Errors: kNotFound. Throws DeviceError when out of
  /// memory.
  Result<Tensor> load(std::string_view name, Device& device) const;

 private:
  std::shared_ptr<const MappedFile> mapped_;  // none when parsed from memory
  std::string path_;
  std::span<const std::byte> file_;
  std::span<const std::byte> data_;
  std::vector<TensorInfo> tensors_;
  SafetensorsMetadata metadata_;
};

struct TensorDecl {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};

/// Writes a file front to back. Not atomic: write to a temporary name or folder.
/// The layout depends on the set of declarations only: larger elements first, then by name, so that
/// every tensor is aligned to its element and equal content gives equal files.
class SafetensorsWriter {
 public:
  /// Writes the header. check: names are distinct. Errors: kInvalidInput (a name that is not UTF-8,
  /// a header above 100 MB), kExhausted, kUnavailable.
  static Result<SafetensorsWriter> create(const std::string& path,
                                          std::vector<TensorDecl> tensors,
                                          const SafetensorsMetadata& metadata = {});

  /// The order in which the tensors' bytes must come.
  const std::vector<TensorInfo>& layout() const { return layout_; }
  /// The next bytes of `tensor`. check: it is its turn, and no more than its size.
  Result<void> write(std::string_view tensor, std::span<const std::byte> bytes);
  /// check: every tensor was written whole. Syncs and closes.
  Result<FileDigest> finish();

 private:
  explicit SafetensorsWriter(FileWriter out) : out_(std::move(out)) {}
  Result<void> put(const void* data, size_t size);

  FileWriter out_;
  Hasher hasher_;
  std::vector<TensorInfo> layout_;
  size_t current_ = 0;          // index in layout_
  uint64_t current_bytes_ = 0;  // of it that were written
};

struct NamedTensor {
  std::string name;
  Tensor value;                   // contiguous, on any device
  std::optional<DType> stored{};  // its type in the file if not the tensor's: f32, bf16 or f16
  /// Instead of a value: gives it, f32 of `shape`, when it is to be written. `stored` must be set.
  std::function<Result<Tensor>()> load = {};
  Shape shape = {};

  DType type_in_file() const { return stored ? *stored : value.dtype(); }
  const Shape& shape_in_file() const { return load ? shape : value.shape(); }
};

/// Writes all of them; value by value, so no second copy of the model is held.
Result<FileDigest> write_safetensors(const std::string& path,
                                     std::span<const NamedTensor> tensors,
                                     const SafetensorsMetadata& metadata = {});

}  // namespace ferry
