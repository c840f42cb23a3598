// GGUF files, which llama.cpp reads: a header of typed values, a table of tensors, and their
// bytes. Everything in it is believed only after it was checked against the file's size.
// Format: github.com/ggml-org/ggml, docs/gguf.md; versions 2 and 3, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "checkpoint/gguf_blocks.h"
#include "tensor/tensor.h"

namespace ferry {

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  Shape shape;         // outermost first (the file has them the other way round)
  size_t part = 0;     // the file that holds it, of a model in several
  uint64_t begin = 0;  // bytes, from the start of that file
  uint64_t bytes = 0;
};

/// A value of the header. Integers of all widths, and floating-point numbers of both, are one type
/// each; lists hold one of the four.
using GgufValue = std::variant<int64_t,
                               double,
                               bool,
                               std::string,
                               std::vector<int64_t>,
                               std::vector<double>,
                               std::vector<bool>,
                               std::vector<std::string>>;

/// The files of a model that llama-gguf-split wrote, if the path's name is that of the first ("-00001-of-00003.gguf");
/// else the path alone.
std::vector<std::string> gguf_files(const std::string& path);

/// A file that was checked whole when it was opened, or all files of a model in several, of which the first has the
/// header; cheap to copy, the copies share the mapping. Thread rule: reading from several threads is fine.
class GgufFile {
 public:
  /// Errors    kNotFound, kUnavailable (cannot be mapped); kCorrupt: not GGUF, cut short, counts
  ///           or lengths beyond the file, sizes beyond 64 bits, an alignment that is no power of
  ///           two, tensors outside the file or over each other, a name or key given twice;
  ///           kInvalidInput: sound but not for Ferry (big-endian, version 1, a later one of several
  ///           files, a type of element that it does not decode). Messages name the path, the key
  ///           or tensor, and the place.
  static Result<GgufFile> open(const std::string& path);
  /// The same for bytes in memory, which must outlive the object; of several files none. `path` is for messages.
  static Result<GgufFile> parse(std::span<const std::byte> file, std::string path);

  const std::string& path() const { return path_; }
  const std::map<std::string, GgufValue, std::less<>>& values() const { return values_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }
  const GgufTensor* find(std::string_view name) const;  // nullptr: none
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;
  /// Of each file, in their order.
  std::vector<std::span<const std::byte>> all_bytes() const;
  /// The paths of these files: more than one only of a model whose header says so, whatever its name looks like.
  std::vector<std::string> files() const;
  /// The path of the file that holds it.
  const std::string& path_of(const GgufTensor& tensor) const { return parts_[tensor.part].path; }
  /// Lets go of the pages that were read (MappedFile::release).
  void release() const {
    for (const Part& p : parts_)
      if (p.mapped != nullptr) p.mapped->release();
  }

  /// The header's value. Errors: kInvalidInput, naming the key: missing, or of another kind; an
  /// integer outside [low, high], a number that is not finite.
  Result<int64_t> integer(std::string_view key, int64_t low, int64_t high) const;
  Result<double> number(std::string_view key) const;
  Result<std::string> text(std::string_view key) const;
  template <class T>
  Result<T> value(std::string_view key, const char* kind) const;
  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }

 private:
  struct Part {
    std::shared_ptr<const MappedFile> mapped;  // none when parsed from memory
    std::span<const std::byte> bytes;
    std::string path;
  };
  static Result<GgufFile> parse_part(std::span<const std::byte> bytes, std::string path);
  static Result<GgufFile> map_part(const std::string& path);
  Result<int64_t> split_value(const char* key, int64_t otherwise) const;
  Result<void> add_others(const std::vector<std::string>& files);

  std::vector<Part> parts_;
  std::string path_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

template <class T>
Result<T> GgufFile::value(std::string_view key, const char* kind) const {
  const auto it = values_.find(key);
  if (it == values_.end())
    return fail(Code::kInvalidInput, "{}: the value \"{}\" is missing", path_, key);
  if (const T* v = std::get_if<T>(&it->second)) return *v;
  return fail(Code::kInvalidInput, "{}: the value \"{}\" must be {}", path_, key, kind);
}

}  // namespace ferry
