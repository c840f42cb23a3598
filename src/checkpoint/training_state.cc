#include "checkpoint/training_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/file.h"
#include "checkpoint/convert.h"
#include "checkpoint/json.h"

namespace ferry {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "ferry-state-1";
constexpr const char* kTensorsName = "state/tensors.json";
constexpr uint64_t kTextBytesMax = uint64_t{1} << 30;

std::string part_name(size_t part) { return fmt::format("part-{:05}.safetensors", part); }

/// How the rows are named in their part.
std::string piece_name(std::string_view name, int64_t begin, int64_t end) {
  return fmt::format("{}[{}:{}]", name, begin, end);
}

Shape with_rows(const Shape& shape, int64_t rows) {
  Shape s = shape;
  s[0] = rows;
  return s;
}

struct Written {
  DType dtype;
  Shape shape;
  std::map<std::pair<int64_t, int64_t>, size_t> parts;  // by [begin, end)
};

std::map<std::string, Written> gathered(const TrainingStateContents& contents) {
  std::map<std::string, Written> tensors;
  for (size_t part = 0; part < contents.parts.size(); ++part) {
    for (const StatePiece& p : contents.parts[part]) {
      check(p.global_shape.rank() >= 1 && p.value.contiguous(),
            "training state: {} must be contiguous, with rows",
            p.name);
      const int64_t rows = p.value.dim(0);
      check(p.value.shape() == with_rows(p.global_shape, rows),
            "training state: {} is {}, of global {}",
            p.name,
            p.value.shape().str(),
            p.global_shape.str());
      const auto [it, fresh] =
          tensors.try_emplace(p.name, Written{p.value.dtype(), p.global_shape, {}});
      check(it->second.dtype == p.value.dtype() && it->second.shape == p.global_shape,
            "training state: the pieces of {} differ in type or global shape",
            p.name);
      check(it->second.parts.emplace(std::pair(p.begin, p.begin + rows), part).second,
            "training state: rows [{}, {}) of {} are given twice",
            p.begin,
            p.begin + rows,
            p.name);
    }
  }
  for (const auto& [name, written] : tensors) {
    int64_t covered = 0;
    for (const auto& [range, part] : written.parts) {
      check(range.first == covered,
            "training state: rows of {} up to {}, then from {}",
            name,
            covered,
            range.first);
      covered = range.second;
    }
    check(covered == written.shape[0],
          "training state: {} of {} rows of {}",
          covered,
          written.shape[0],
          name);
  }
  return tensors;
}

std::string tensors_json(const std::map<std::string, Written>& tensors) {
  json list = json::object();
  for (const auto& [name, written] : tensors) {
    json shape = json::array(), pieces = json::array();
    for (int d = 0; d < written.shape.rank(); ++d) shape.push_back(written.shape[d]);
    for (const auto& [range, part] : written.parts)
      pieces.push_back({range.first, range.second, part});
    list[name] = {{"dtype", to_string(written.dtype)}, {"shape", shape}, {"pieces", pieces}};
  }
  return json_text(json{{"format", kFormat}, {"tensors", list}}, 1) + "\n";
}

bool is_list_of_unsigned(const json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const json& v) {
           return v.is_number_unsigned() && v.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
         });
}

/// A list of dimensions whose elements can be counted, also where one of them is 0.
bool is_shape(const json& value) {
  if (!is_list_of_unsigned(value) || value.empty() || value.size() > static_cast<size_t>(kRankMax))
    return false;
  int64_t count = 1;
  for (const json& d : value)
    if (__builtin_mul_overflow(count, std::max<int64_t>(d.get<int64_t>(), 1), &count) ||
        count > kElementsMax)
      return false;
  return true;
}

}  // namespace

Result<Checksums> checksums_with_state(const std::string& checkpoint) {
  TRY_ASSIGN(Checksums sums, Checksums::open(checkpoint));
  if (!sums.files().contains(kStateDocument))
    return fail(
        Code::kNotFound,
        "{}: is a model without training state; training can start from it, but not be resumed",
        checkpoint);
  TRY_ASSIGN(const bool left_out, sums.leave_out(kStateFolder));
  if (left_out)
    return fail(Code::kNotFound,
                "{}: {}; put the folder back from a copy, or begin a new run with this model as "
                "model.init",
                checkpoint,
                kStateLeftOut);
  TRY(sums.check_sizes());
  return sums;
}

uint64_t bytes_needed(const TrainingStateContents& contents) {
  constexpr uint64_t kPerPiece = 512, kPerFile = 8192;
  uint64_t bytes = 2 * kPerFile + contents.document.size();
  for (const auto& part : contents.parts) {
    bytes += kPerFile;
    for (const StatePiece& p : part) bytes += p.value.bytes() + kPerPiece + 2 * p.name.size();
  }
  return bytes;
}

Result<void> write_training_state(StagedFolder& folder, const TrainingStateContents& contents) {
  const std::map<std::string, Written> tensors = gathered(contents);
  TRY(folder.make_subfolder(kStateFolder));
  for (size_t part = 0; part < contents.parts.size(); ++part) {
    std::vector<NamedTensor> pieces;
    for (const StatePiece& p : contents.parts[part])
      pieces.push_back({piece_name(p.name, p.begin, p.begin + p.value.dim(0)), p.value});
    const std::string file = join_path(kStateFolder, part_name(part));
    TRY_ASSIGN(FileDigest digest, write_safetensors(folder.file(file), pieces));
    folder.add(file, std::move(digest));
  }
  TRY(folder.write_text(kTensorsName, tensors_json(tensors)));
  return folder.write_text(kStateDocument, contents.document);
}

Result<TrainingStateReader> TrainingStateReader::open(const std::string& checkpoint) {
  TrainingStateReader state;
  state.path_ = checkpoint;
  TRY_ASSIGN(Checksums sums, checksums_with_state(checkpoint));
  state.sums_ = std::make_unique<Checksums>(std::move(sums));
  TRY_ASSIGN(state.document_, read_file(join_path(checkpoint, kStateDocument), kTextBytesMax));
  TRY(state.sums_->check_bytes(kStateDocument, state.document_.data(), state.document_.size()));
  const std::string path = join_path(checkpoint, kTensorsName);
  TRY_ASSIGN(const std::string text, read_file(path, kTextBytesMax));
  TRY(state.sums_->check_bytes(kTensorsName, text.data(), text.size()));
  TRY(state.read_tensors(text, path));
  return state;
}

Result<void> TrainingStateReader::read_tensors(const std::string& text, const std::string& path) {
  TRY_ASSIGN(const json root, parse_json(text, path));
  if (!root.is_object() || !root.contains("format") || root["format"] != kFormat ||
      !root.contains("tensors") || !root["tensors"].is_object())
    return fail(
        Code::kCorrupt, "{}: needs \"format\": \"{}\" and an object \"tensors\"", path, kFormat);
  for (size_t part = 0; sums_->files().contains(join_path(kStateFolder, part_name(part))); ++part) {
    part_names_.push_back(join_path(kStateFolder, part_name(part)));
    TRY_ASSIGN(SafetensorsFile file, SafetensorsFile::open(join_path(path_, part_names_.back())));
    parts_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
  }
  for (const auto& [name, value] : root["tensors"].items()) {
    const bool formed = value.is_object() && value.contains("dtype") &&
                        value["dtype"].is_string() && value.contains("shape") &&
                        is_shape(value["shape"]) && value.contains("pieces") &&
                        value["pieces"].is_array();
    const auto dtype =
        formed ? dtype_from_string(value["dtype"].get_ref<const std::string&>()) : std::nullopt;
    if (!dtype)
      return fail(Code::kCorrupt, "{}: {}: needs dtype, shape and pieces", path, printable(name));
    Entry entry{{*dtype, Shape(value["shape"].get<std::vector<int64_t>>())}, {}};
    int64_t covered = 0;
    for (const json& p : value["pieces"]) {
      if (!is_list_of_unsigned(p) || p.size() != 3)
        return fail(
            Code::kCorrupt, "{}: {}: a piece is not [begin, end, part]", path, printable(name));
      const Piece piece{p[0].get<int64_t>(), p[1].get<int64_t>(), p[2].get<size_t>(), nullptr};
      if (piece.begin != covered || piece.end < piece.begin || piece.part >= parts_.size())
        return fail(Code::kCorrupt,
                    "{}: {}: the piece [{}, {}) of part {} does not follow row {}",
                    path,
                    printable(name),
                    piece.begin,
                    piece.end,
                    piece.part,
                    covered);
      const TensorInfo* info = parts_[piece.part]->find(piece_name(name, piece.begin, piece.end));
      if (info == nullptr || info->dtype != *dtype ||
          info->shape != with_rows(entry.tensor.shape, piece.end - piece.begin))
        return fail(Code::kCorrupt,
                    "{}: rows [{}, {}) of {} are not in {} as listed",
                    path,
                    piece.begin,
                    piece.end,
                    printable(name),
                    part_names_[piece.part]);
      entry.pieces.push_back({piece.begin, piece.end, piece.part, info});
      covered = piece.end;
    }
    if (covered != entry.tensor.shape[0])
      return fail(Code::kCorrupt,
                  "{}: {}: pieces cover {} of {} rows",
                  path,
                  printable(name),
                  covered,
                  entry.tensor.shape[0]);
    entries_.emplace(name, std::move(entry));
  }
  return {};
}

std::vector<std::string> TrainingStateReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

const StateTensor* TrainingStateReader::info(std::string_view name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second.tensor;
}

Result<Tensor> TrainingStateReader::load_range(std::string_view name,
                                               int64_t begin,
                                               int64_t end,
                                               Device& device) {
  const auto it = entries_.find(name);
  if (it == entries_.end())
    return fail(Code::kNotFound, "{}: the training state has no tensor {}", path_, printable(name));
  const auto& [tensor, pieces] = it->second;
  check(0 <= begin && begin <= end && end <= tensor.shape[0],
        "training state: rows [{}, {}) of {} {}",
        begin,
        end,
        name,
        tensor.shape.str());
  Tensor rows = Tensor::empty(with_rows(tensor.shape, end - begin), tensor.dtype, device);
  const size_t row_bytes = end == begin ? 0 : rows.bytes() / static_cast<size_t>(end - begin);
  for (const Piece& p : pieces) {
    const int64_t from = std::max(begin, p.begin), to = std::min(end, p.end);
    if (from >= to) continue;
    const SafetensorsFile& file = *parts_[p.part];
    TRY(sums_->check_bytes(
        part_names_[p.part], file.file_bytes().data(), file.file_bytes().size()));
    fill_from(rows.slice(0, from - begin, to - begin),
              tensor.dtype,
              file.bytes(*p.info).subspan(static_cast<size_t>(from - p.begin) * row_bytes,
                                          static_cast<size_t>(to - from) * row_bytes));
  }
  return rows;
}

Result<Tensor> TrainingStateReader::load(std::string_view name, Device& device) {
  const StateTensor* found = info(name);
  if (found == nullptr)
    return fail(Code::kNotFound, "{}: the training state has no tensor {}", path_, printable(name));
  return load_range(name, 0, found->shape[0], device);
}

}  // namespace ferry
