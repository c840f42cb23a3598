#include "checkpoint/model_dir.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "base/file.h"
#include "base/json_fields.h"
#include "base/python_json.h"
#include "base/stand_in.h"
#include "checkpoint/adapter.h"
#include "checkpoint/convert.h"
#include "checkpoint/fused_experts.h"
#include "checkpoint/json.h"
#include "checkpoint/quant_description.h"
#include "checkpoint/training_state.h"
#include "checkpoint/wrong_path.h"

namespace ferry {
namespace {

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";
/// Where msModelSlim writes codes: a name of their own, so that nobody takes them for numbers.
constexpr const char* kQuantStem = "quant_model_weights";
constexpr const char* kQuantSingleName = "quant_model_weights.safetensors";
constexpr const char* kQuantIndexName = "quant_model_weights.safetensors.index.json";
/// As its older versions call them.
constexpr const char* kOldQuantSingleName = "quant_model_weight_w8a8_dynamic.safetensors";
constexpr const char* kOldQuantIndexName = "quant_model_weight_w8a8_dynamic.safetensors.index.json";
constexpr uint64_t kTextBytesMax = uint64_t{256} << 20;

/// Stacks taken apart: views, no copies.
std::vector<NamedTensor> expanded(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& t : tensors) {
    if (t.load) {
      out.push_back(t);
      continue;
    }
    const DType stored = t.type_in_file();
    check(t.value.contiguous(), "model dir: {} is not contiguous", t.name);
    check(can_convert(t.value.dtype(), stored),
          "model dir: {} is {}, to be stored as {}",
          t.name,
          to_string(t.value.dtype()),
          to_string(stored));
    if (t.name.find('*') == std::string::npos) {
      out.push_back(t);
      continue;
    }
    check(t.value.rank() >= 2,
          "model dir: {} stands for a stack, but has shape {}",
          t.name,
          t.value.shape().str());
    std::vector<int64_t> dims;
    for (int d = 1; d < t.value.rank(); ++d) dims.push_back(t.value.dim(d));
    for (int64_t e = 0; e < t.value.dim(0); ++e)
      out.push_back(
          {expert_name(t.name, e), t.value.slice(0, e, e + 1).reshape(Shape(dims)), t.stored});
  }
  return out;
}

uint64_t stored_bytes(const NamedTensor& t) {
  return static_cast<uint64_t>(t.shape_in_file().count()) * size_of(t.type_in_file());
}

Result<void> write_shards(StagedFolder& folder,
                          const std::vector<NamedTensor>& tensors,
                          uint64_t shard_bytes,
                          const std::string& stem) {
  std::vector<std::vector<NamedTensor>> shards(1);
  uint64_t total = 0, filled = 0;
  for (const NamedTensor& t : tensors) {
    const uint64_t bytes = stored_bytes(t);
    if (!shards.back().empty() && filled + bytes > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(t);
    filled += bytes;
    total += bytes;
  }
  nlohmann::json places = nlohmann::json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        shards.size() == 1
            ? stem + ".safetensors"
            : fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size());
    // "format" tells the libraries that read the Hugging Face layout how the tensors are laid out.
    TRY_ASSIGN(FileDigest digest,
               write_safetensors(folder.file(name), shards[i], {{"format", "pt"}}));
    folder.add(name, std::move(digest));
    for (const NamedTensor& t : shards[i])
      check(places.emplace(t.name, name).second, "model dir: {} is given twice", t.name);
  }
  if (shards.size() == 1) return {};
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", places}};
  return folder.write_text(stem + ".safetensors.index.json", json_text(index, 2) + "\n");
}

}  // namespace

Result<ModelDir> ModelDir::open(const std::string& path) {
  // A writer may replace the directory between two of our reads; then what was read is of two
  // models. Only folders with checksums.json are ever replaced, and equal checksums are equal
  // contents.
  const std::string sums = join_path(path, kChecksumsName);
  for (int tries_left = 8; tries_left > 0; --tries_left) {
    TRY_ASSIGN(const bool there, is_there(path));
    if (!there && path_exists(parent_folder(path))) TRY(recover_folder(path));
    std::optional<FolderClaim> turn;
    if (tries_left <= 4 && is_folder(path)) {  // not at first: most readers are alone
      TRY_ASSIGN(turn, keep_from_being_replaced(path));
    }
    if (!is_folder(path)) continue;  // not there, or not there while somebody replaces it
    const Result<std::string> before = read_file(sums);
    Result<ModelDir> dir = open_once(path);
    const Result<std::string> after = read_file(sums);
    if (before && after ? *before == *after : !before && !after) return dir;
  }
  TRY_ASSIGN(const bool there, is_there(path));
  if (!there) return fail(Code::kNotFound, "{}: {}", path, instead_of_model_dir(path));
  if (!is_folder(path))
    return fail(Code::kInvalidInput, "{}: {}", path, instead_of_model_dir(path));
  return fail(Code::kUnavailable, "{}: is being replaced over and over; try again", path);
}

Result<ModelDir> ModelDir::open_once(const std::string& path) {
  ModelDir dir;
  dir.path_ = path;
  TRY_ASSIGN(const bool summed, is_there(join_path(path, kChecksumsName)));
  if (summed) {
    TRY_ASSIGN(dir.sums_, Checksums::open(path));
    TRY_ASSIGN(dir.state_left_out_, dir.sums_->leave_out(kStateFolder));
    TRY(dir.sums_->check_sizes());
  }
  TRY(dir.open_passport());
  TRY_ASSIGN(const bool has_config, is_there(join_path(path, kConfigName)));
  const bool adapter = path_exists(join_path(path, kAdapterConfigName));
  if (!has_config && (adapter || (!dir.sums_ && !dir.passport_)))
    return fail(Code::kNotFound, "{}: {}", path, instead_of_model_dir(path));
  TRY_ASSIGN(const std::string config, dir.text(kConfigName));
  dir.config_json_ = json_of_python(config);
  TRY_ASSIGN(const bool older, is_there(join_path(path, kOldQuantDescriptionName)));
  TRY_ASSIGN(const bool newer, is_there(join_path(path, kQuantDescriptionName)));
  if (older && newer)
    return fail(Code::kCorrupt,
                "{}: has {} and {}; remove the one that does not belong to the model",
                path,
                kQuantDescriptionName,
                kOldQuantDescriptionName);
  const char* const described_in = older ? kOldQuantDescriptionName : kQuantDescriptionName;
  TRY(dir.open_shards(older || newer));
  TRY_ASSIGN(const std::optional<std::string> description, dir.optional_text(described_in));
  TRY(check_quant_description(description,
                              join_path(path, described_in),
                              dir.config_json_,
                              dir.names(),
                              [&dir](std::string_view name) { return dir.stored(name); }));
  return dir;
}

Result<void> ModelDir::open_passport() {
  const std::string passport_path = join_path(path_, kPassportName);
  TRY_ASSIGN(const bool has_passport, is_there(passport_path));
  if (!has_passport) return {};
  TRY_ASSIGN(const std::string content, read_file(passport_path, kTextBytesMax));
  TRY_ASSIGN(Passport passport, Passport::parse(content, passport_path));
  passport_ = std::make_shared<const Passport>(std::move(passport));
  chunks_.emplace(*passport_);
  for (const auto& [name, file] : passport_->files) {
    const std::string path = join_path(path_, name);
    TRY_ASSIGN(const bool there, is_there(path));
    if (!there)
      return fail(Code::kCorrupt,
                  "{}: missing, but {} lists it; restore it, or the passport is another model's",
                  path,
                  kPassportName);
    TRY_ASSIGN(const uint64_t bytes, file_size(path));
    TRY(chunks_->check_size(name, path, bytes));
  }
  return {};
}

Result<void> ModelDir::open_shards(bool quantised) {
  const char* first = nullptr;
  for (const char* name :
       {kQuantIndexName, kQuantSingleName, kOldQuantIndexName, kOldQuantSingleName}) {
    TRY_ASSIGN(const bool stored, is_there(join_path(path_, name)));
    if (!quantised || !stored) continue;
    if (first != nullptr)
      return fail(Code::kCorrupt,
                  "{}: has {} and {}; remove the one that does not belong to the model",
                  path_,
                  first,
                  name);
    first = name;
  }
  if (const char* const name = first; name != nullptr) {
    if (name == kQuantIndexName || name == kOldQuantIndexName) return open_index(name);
    TRY(add_shard(name));
    for (const TensorInfo& t : shards_[0]->tensors()) places_.emplace(t.name, Place{0, &t});
    return {};
  }
  const std::string index = join_path(path_, kIndexName);
  TRY_ASSIGN(const bool single, is_there(join_path(path_, kSingleName)));
  TRY_ASSIGN(const bool indexed, is_there(index));
  if (single && indexed)
    return fail(Code::kCorrupt,
                "{}: has {} and {}; remove the one that does not belong to the model",
                path_,
                kSingleName,
                kIndexName);
  if (indexed) {
    TRY(open_index(kIndexName));
    return take_experts_apart();
  }
  if (!single)
    return fail(Code::kNotFound,
                "{}: has neither {} nor {}{}",
                path_,
                kSingleName,
                kIndexName,
                why_missing(path_, kSingleName));
  TRY(add_shard(kSingleName));
  for (const TensorInfo& t : shards_[0]->tensors()) places_.emplace(t.name, Place{0, &t});
  return take_experts_apart();
}

/// Whoever asks for an expert's matrix finds it, however the file has them.
Result<void> ModelDir::take_experts_apart() {
  for (auto it = places_.begin(); it != places_.end();) {
    std::vector<TensorInfo> experts = experts_in(*it->second.info);
    if (experts.empty()) {
      ++it;
      continue;
    }
    const std::string fused = it->first;
    const size_t shard = it->second.shard;
    it = places_.erase(it);
    for (TensorInfo& one : experts) {
      experts_.push_back(std::move(one));
      const TensorInfo& expert = experts_.back();
      if (!places_.emplace(expert.name, Place{shard, &expert}).second)
        return fail(
            Code::kCorrupt,
            "{}: {} stands by itself and in {}; remove the one that does not belong to the model",
            path_,
            printable(expert.name),
            printable(fused));
    }
  }
  return {};
}

Result<void> ModelDir::open_index(const std::string& index_name) {
  const std::string index_path = join_path(path_, index_name);
  TRY_ASSIGN(const std::string content, text(index_name));
  TRY_ASSIGN(const nlohmann::json index, parse_python_json(content, index_path));
  JsonProblem problem;
  JsonFields f(index, index_path, problem);
  const nlohmann::json& map = f.members("weight_map");
  TRY(problem.done());
  std::set<std::string> files;
  for (const auto& [name, where] : map.items()) {
    if (!where.is_string())
      return fail(Code::kCorrupt, "{}: {}: expected a file's name", index_path, printable(name));
    const std::string& file = where.get_ref<const std::string&>();
    if (!is_inside(file) || file.find('/') != file.npos || !file.ends_with(".safetensors"))
      return fail(Code::kCorrupt,
                  "{}: {}: {} is not the name of a safetensors file in this directory",
                  index_path,
                  printable(name),
                  printable(file));
    files.insert(file);
  }
  for (const std::string& file : files) {
    TRY_ASSIGN(const bool there, is_there(join_path(path_, file)));
    if (!there)
      return fail(Code::kNotFound,
                  "{}: {} is missing, but the index names it; fetch the shard{}",
                  path_,
                  file,
                  why_missing(path_, file));
  }
  for (const std::string& file : files) {
    const size_t number = shards_.size();
    TRY(add_shard(file));
    for (const TensorInfo& t : shards_.back()->tensors()) {
      const auto it = map.find(t.name);
      if (it == map.end())
        return fail(Code::kCorrupt,
                    "{}: {} holds {}, which the index does not name",
                    path_,
                    file,
                    printable(t.name));
      if (*it != file)
        return fail(Code::kCorrupt,
                    "{}: {} is in {}, but the index places it in {}",
                    path_,
                    printable(t.name),
                    file,
                    it->get_ref<const std::string&>());
      places_.emplace(t.name, Place{number, &t});
    }
  }
  for (const auto& [name, where] : map.items())
    if (!places_.contains(name))
      return fail(Code::kCorrupt,
                  "{}: the index places {} in {}, which does not have it",
                  path_,
                  printable(name),
                  where.get_ref<const std::string&>());
  return {};
}

Result<void> ModelDir::add_shard(const std::string& name) {
  const std::string path = join_path(path_, name);
  {
    constexpr size_t kHead = 256;
    TRY_ASSIGN(const MappedFile whole, MappedFile::open(path));
    const size_t bytes = std::min(kHead, whole.bytes().size());
    const std::string what =
        stands_for({reinterpret_cast<const char*>(whole.bytes().data()), bytes});
    if (!what.empty()) return fail(Code::kCorrupt, "{}: {}", path, what);
  }
  TRY_ASSIGN(SafetensorsFile file, SafetensorsFile::open(path));
  shard_names_.push_back(name);
  shards_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
  if (!chunks_) return {};
  const SafetensorsFile& shard = *shards_.back();
  return check_bytes(
      shards_.size() - 1, 0, shard.data_begin());  // what the header says is relied on
}

/// Bytes of a shard that are about to be relied on.
Result<void> ModelDir::check_bytes(size_t shard, uint64_t begin, uint64_t end) {
  const SafetensorsFile& file = *shards_[shard];
  if (chunks_)
    return chunks_->check_range(
        shard_names_[shard],
        file.path(),
        file.file_bytes(),
        begin,
        end,
        [&](uint64_t first, uint64_t last) { return tensors_in(shard, first, last); });
  if (!sums_) return {};
  return sums_->check_bytes(
      shard_names_[shard], file.file_bytes().data(), file.file_bytes().size());
}

/// What lies in these bytes, for a message.
std::string ModelDir::tensors_in(size_t shard, uint64_t first, uint64_t last) const {
  constexpr size_t kNamed = 4;
  const SafetensorsFile& file = *shards_[shard];
  std::vector<std::string> names;
  if (first < file.data_begin()) names.emplace_back("the header");
  for (const TensorInfo& t : file.tensors())
    if (file.data_begin() + t.begin < last && file.data_begin() + t.end > first)
      names.push_back(t.name);
  const size_t others = names.size() > kNamed ? names.size() - kNamed : 0;
  names.resize(names.size() - others);
  return fmt::format(
      "{}{}", fmt::join(names, ", "), others > 0 ? fmt::format(" and {} more", others) : "");
}

std::vector<std::string> ModelDir::notes() const {
  if (!state_left_out_) return {};
  return {kStateLeftOut};
}

std::vector<std::string> ModelDir::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

std::string ModelDir::path_of(const std::string& file_name) const {
  return join_path(path_, file_name);
}

std::optional<StoredTensor> ModelDir::stored(std::string_view name) const {
  const TensorInfo* found = info(name);
  if (found == nullptr) return std::nullopt;
  return StoredTensor{found->shape, found->dtype};
}

Result<std::string> ModelDir::weights_root(const HashedBytes& hashed) const {
  std::map<std::string, Digest> roots;
  for (size_t i = 0; i < shards_.size(); ++i) {
    const std::string& name = shard_names_[i];
    // A shard that a passport does not list is not opened.
    if (passport_) {
      roots[name] = passport_->files.at(name).root;
      continue;
    }
    TRY_ASSIGN(const std::vector<Digest> leaves, hash_chunks(shards_[i]->file_bytes(), hashed));
    roots[name] = tree_root(leaves);
  }
  return root_of_weights(roots);
}

Result<std::vector<std::string>> ModelDir::texts_in(const std::string& folder) const {
  const std::string path = path_of(folder);
  TRY_ASSIGN(const bool there, is_there(path));
  if (!there || !is_folder(path)) return std::vector<std::string>{};
  return list_folder(path);
}

const TensorInfo* ModelDir::info(std::string_view name) const {
  const auto it = places_.find(name);
  return it == places_.end() ? nullptr : it->second.info;
}

/// With a tensor of shape `whole`, from its element `first` on.
Result<void> ModelDir::fill(const Tensor& tensor,
                            std::string_view name,
                            const Shape& whole,
                            int64_t first) {
  const auto it = places_.find(name);
  if (it == places_.end())
    return fail(Code::kNotFound, "{}: has no tensor {}", path_, printable(name));
  const auto& [shard, info] = it->second;
  const SafetensorsFile& file = *shards_[shard];
  if (info->shape != whole)
    return fail(Code::kInvalidInput,
                "{}: {} has shape {}, expected {}",
                file.path(),
                name,
                info->shape.str(),
                whole.str());
  if (!can_convert(info->dtype, tensor.dtype())) {
    const bool fp8 = info->dtype == DType::kF8E4M3,
               numbers = can_convert(DType::kF32, tensor.dtype());
    return fail(Code::kInvalidInput,
                "{}: {} is {}, wanted {}{}",
                file.path(),
                name,
                to_string(info->dtype),
                to_string(tensor.dtype()),
                fp8       ? "; FP8 codes mean nothing without their scales"
                : numbers ? ", which is made of F32, BF16 or F16: store it as one of them"
                          : "");
  }
  const size_t element = size_of(info->dtype);
  const std::span<const std::byte> bytes = file.bytes(*info).subspan(
      static_cast<size_t>(first) * element, static_cast<size_t>(tensor.count()) * element);
  const auto begin = static_cast<uint64_t>(bytes.data() - file.file_bytes().data());
  TRY(check_bytes(shard, begin, begin + bytes.size()));
  if (const std::optional<size_t> bad = fill_from_finite(tensor, info->dtype, bytes))
    return fail(Code::kCorrupt,
                "{}: {} holds a number that is not finite (NaN or infinite), element {} of {}: the "
                "weights are damaged, or their training diverged",
                file.path(),
                name,
                static_cast<size_t>(first) + *bad,
                info->shape.str());
  file.release();
  return {};
}

Result<Tensor> ModelDir::load(std::string_view name, Device& device, DType want) {
  const TensorInfo* found = info(name);
  if (found == nullptr)
    return fail(Code::kNotFound, "{}: has no tensor {}", path_, printable(name));
  Tensor tensor = Tensor::empty(found->shape, want, device);
  TRY(fill(tensor, name, found->shape, 0));
  return tensor;
}

Result<Tensor> ModelDir::load_rows(
    std::string_view name, int64_t first, int64_t rows, Device& device, DType want) {
  const TensorInfo* found = info(name);
  if (found == nullptr)
    return fail(Code::kNotFound, "{}: has no tensor {}", path_, printable(name));
  check(found->shape.rank() == 2 && 0 <= first && 0 <= rows && rows <= found->shape[0] - first,
        "load_rows: {} {}, rows {} from {} on",
        name,
        found->shape.str(),
        rows,
        first);
  Tensor tensor = Tensor::empty({rows, found->shape[1]}, want, device);
  TRY(fill(tensor, name, found->shape, first * found->shape[1]));
  return tensor;
}

Result<void> ModelDir::take_codes(std::string_view name, PanelsInMaking&, int64_t) {
  return fail(Code::kNotFound, "{}: has no codes of its own for {}", path_, printable(name));
}

Result<Tensor> ModelDir::load_stacked(std::string_view name_with_star,
                                      int64_t experts,
                                      Device& device,
                                      DType want) {
  check(experts > 0, "load_stacked: {} of {} experts", name_with_star, experts);
  const std::string first = expert_name(name_with_star, 0);
  const TensorInfo* found = info(first);
  if (found == nullptr)
    return fail(Code::kNotFound, "{}: has no tensor {}", path_, printable(first));
  if (info(expert_name(name_with_star, experts)) != nullptr)
    return fail(Code::kInvalidInput,
                "{}: has {}, more than the {} experts expected",
                path_,
                expert_name(name_with_star, experts),
                experts);
  if (found->shape.rank() >= kRankMax)
    return fail(Code::kInvalidInput,
                "{}: {} has shape {}; too many dimensions to stack",
                path_,
                first,
                found->shape.str());
  std::vector<int64_t> dims = {experts};
  for (int d = 0; d < found->shape.rank(); ++d) dims.push_back(found->shape[d]);
  Tensor stack = Tensor::empty(Shape(dims), want, device);
  for (int64_t e = 0; e < experts; ++e)
    TRY(fill(stack.slice(0, e, e + 1).reshape(found->shape),
             expert_name(name_with_star, e),
             found->shape,
             0));
  return stack;
}

Result<std::string> ModelDir::text(const std::string& file_name) {
  const std::string path = join_path(path_, file_name);
  TRY_ASSIGN(std::string content, read_file(path, kTextBytesMax));
  // A passport speaks for the whole directory: what it does not list is not believed, whoever else
  // lists it.
  if (chunks_) {
    TRY(chunks_->check_whole(file_name, path, std::as_bytes(std::span(content))));
  } else if (sums_) {
    TRY(sums_->check_bytes(file_name, content.data(), content.size()));
  }
  if (const std::string what = stands_for(content); !what.empty())
    return fail(Code::kCorrupt, "{}: {}", path, what);
  return content;
}

Result<std::optional<std::string>> ModelDir::optional_text(const std::string& file_name) {
  const std::string path = join_path(path_, file_name);
  const bool listed = passport_ != nullptr && passport_->files.contains(file_name);
  TRY_ASSIGN(const bool there, is_there(path));
  if (!listed && !there && link_target(path).empty()) return std::nullopt;
  TRY_ASSIGN(std::string content, text(file_name));
  return content;
}

Result<void> ModelDir::verify() {
  if (!sums_ && !passport_)
    return fail(Code::kNotFound,
                "{}: has neither {} nor {}, so there is nothing to verify against",
                path_,
                kPassportName,
                kChecksumsName);
  Result<void> right = check_all();
  if (right) return right;
  // What was opened stays what it is, but files that are opened only now may be another model's.
  const char* witness = sums_ ? kChecksumsName : kPassportName;
  const Result<std::string> now = read_file(join_path(path_, witness));
  const bool same =
      now && (sums_ ? *now == sums_->text()
                    : Passport::parse(*now, path_).value_or(Passport{}).root == passport_->root);
  if (same) return right;
  return fail(Code::kUnavailable,
              "{}: was replaced meanwhile by another model; verify that one ({})",
              path_,
              right.error().message);
}

Result<void> ModelDir::check_all() {
  for (size_t i = 0; i < shards_.size(); ++i)
    TRY(check_bytes(i, 0, shards_[i]->file_bytes().size()));
  if (passport_)
    for (const auto& [name, file] : passport_->files) {
      const std::string path = join_path(path_, name);
      if (std::find(shard_names_.begin(), shard_names_.end(), name) != shard_names_.end()) continue;
      TRY_ASSIGN(const MappedFile mapped, MappedFile::open(path));
      TRY(chunks_->check_whole(name, path, mapped.bytes()));
    }
  if (passport_) {
    TRY_ASSIGN(const std::vector<std::string> names, files_that_count(path_));
    for (const std::string& name : names)
      if (!passport_->files.contains(name)) return unlisted(join_path(path_, name));
  }
  return sums_ ? sums_->check_all() : Result<void>{};
}

uint64_t bytes_needed(const ModelContents& contents) {
  // Headers and the index take about 200 bytes and two names for each tensor; files fill blocks of
  // 4 KiB.
  constexpr uint64_t kPerTensor = 512, kPerFile = 8192;
  uint64_t bytes = kPerFile, total = 0;
  for (const NamedTensor& t : expanded(contents.tensors)) {
    total += stored_bytes(t);
    bytes += kPerTensor + 2 * t.name.size();
  }
  bytes += total + (total / std::max<uint64_t>(contents.shard_bytes, 1) * 2 + 1) * kPerFile;
  for (const auto& [name, text] : contents.texts) bytes += text.size() + kPerFile;
  if (contents.passport) {
    constexpr uint64_t kPerChunk = 2 * sizeof(Digest);
    bytes += contents.passport->probes_bytes() + chunk_count(bytes) * kPerChunk + 3 * kPerFile;
  }
  return bytes;
}

Result<void> write_model(StagedFolder& folder, const ModelContents& contents) {
  const bool adapter = contents.texts.contains(kAdapterConfigName);
  check(contents.texts.contains(kConfigName) || adapter,
        "model dir: no {} given for {}",
        kConfigName,
        folder.destination());
  std::set<std::string> subfolders;  // additional_chat_templates
  for (const auto& [name, text] : contents.texts) {
    const size_t slash = name.find('/');
    if (slash != name.npos && subfolders.insert(name.substr(0, slash)).second)
      TRY(folder.make_subfolder(name.substr(0, slash)));
    TRY(folder.write_text(name, text));
  }
  const bool codes = contents.texts.contains(kQuantDescriptionName);
  TRY(write_shards(folder,
                   expanded(contents.tensors),
                   contents.shard_bytes,
                   codes     ? kQuantStem
                   : adapter ? kAdapterStem
                             : "model"));
  if (!contents.passport) return {};
  Passport passport = *contents.passport;
  for (const std::string& name : folder.names()) TRY(passport.add_file(folder.file(""), name));
  passport.seal(contents.key);
  // Not listed in checksums.json: it answers for itself, and may be signed anew later.
  TRY(write_file_atomic(folder.file(kPassportName), passport.to_json()));
  for (const Verification& v : contents.verified)
    TRY(add_verification(folder.file(""), passport.root, v));
  return {};
}

Result<SaveReport> write_model_dir(const std::string& path, const ModelContents& contents) {
  TRY_ASSIGN(StagedFolder folder, StagedFolder::create(path));
  TRY(require_space(parent_folder(folder.destination()), bytes_needed(contents)));
  TRY(write_model(folder, contents));
  return commit_folder(folder);
}

Result<SaveReport> commit_folder(StagedFolder& folder) {
  const Result<void> done = folder.commit();
  if (!done && folder.published())
    return fail(done.error().code,
                "{}; {} is the new one, whole, but it may not survive a power failure: save again",
                done.error().message,
                folder.destination());
  if (!done) return tl::unexpected(done.error());
  return SaveReport{
      .path = folder.destination(), .bytes = folder.bytes(), .warnings = folder.warnings()};
}

Result<void> recover_model_dir(const std::string& path) {
  TRY(recover_folder(path));
  const std::vector<std::string> problems = remove_leftovers(path);
  if (!problems.empty()) return fail(Code::kUnavailable, "{}", problems.front());
  return {};
}

}  // namespace ferry
