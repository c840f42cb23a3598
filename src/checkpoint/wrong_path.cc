#include "checkpoint/wrong_path.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include "base/counted.h"
#include "base/file.h"
#include "base/shell.h"
#include "base/stand_in.h"
#include "checkpoint/quant_description.h"

namespace ferry {
namespace {

constexpr const char* kConfig = "config.json";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kCodes = "quant_model_weight";  // names of quantised weights begin so
constexpr uint64_t kRefBytesMax = 4096;

std::vector<std::string> names_in(const std::string& folder) {
  return list_folder(folder).value_or(std::vector<std::string>{});
}

bool has(const std::string& folder, const char* name) {
  return path_exists(join_path(folder, name));
}

/// The hub keeps a model as models--ORG--NAME/{blobs,refs,snapshots}; snapshots/REVISION is the
/// model directory, its files links into blobs. The snapshot that refs/main names, else the only
/// one; empty if there is none.
std::string snapshot_of(const std::string& cache) {
  const std::string snapshots = join_path(cache, "snapshots");
  if (const auto ref = read_file(join_path(cache, "refs/main"), kRefBytesMax)) {
    const std::string revision = ref->substr(0, ref->find_first_of(" \t\r\n"));
    const std::string path = join_path(snapshots, revision);
    if (!revision.empty() && revision.find('/') == revision.npos && is_folder(path)) return path;
  }
  const std::vector<std::string> all = names_in(snapshots);
  return all.size() == 1 ? join_path(snapshots, all[0]) : "";
}

std::string describe_cache(const std::string& cache) {
  const std::string snapshot = snapshot_of(cache);
  if (!snapshot.empty())
    return fmt::format("is the hub's cache of a model; the model directory in it is {}", snapshot);
  const std::vector<std::string> all = names_in(join_path(cache, "snapshots"));
  if (all.empty())
    return "is the hub's cache of a model, but holds no snapshot of it: the download was not "
           "finished; fetch it again";
  return fmt::format(
      "is the hub's cache of a model, with {} snapshots; name one of them, such as {}",
      all.size(),
      join_path(join_path(cache, "snapshots"), all[0]));
}

/// As the path is written, without slashes at its end: the last name in it, and what is before that.
std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}
std::string last_name(const std::string& path) {
  const std::string whole = without_slashes(path);
  return whole.substr(whole.rfind('/') + 1);
}
std::string parent_of(const std::string& path) { return parent_folder(without_slashes(path)); }

/// The subfolders of `folder` that begin with `prefix`.
std::vector<std::string> folders_in(const std::string& folder, std::string_view prefix) {
  std::vector<std::string> found;
  for (const std::string& name : names_in(folder))
    if (name.starts_with(prefix) && is_folder(join_path(folder, name)))
      found.push_back(join_path(folder, name));
  return found;
}

/// A name of the hub: ORG/NAME, of letters, digits, '-', '_' and '.'.
bool is_hub_name(const std::string& path) {
  const size_t slash = path.find('/');
  if (slash == path.npos || slash == 0 || path.find('/', slash + 1) != path.npos) return false;
  if (slash + 1 == path.size() || path[0] == '.' || path[0] == '~') return false;
  return std::all_of(path.begin(), path.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  });
}

/// What of an address lies behind the hub's name; empty if this is no address of the hub.
std::string_view place_on_hub(std::string_view address) {
  constexpr std::string_view kHub = "huggingface.co/";
  const size_t at = address.find(kHub);
  return at == address.npos ? "" : address.substr(at + kHub.size());
}

/// "https://huggingface.co/ORG/NAME/tree/main" has the model's name in it; empty if this is no such
/// address.
std::string hub_name_in(std::string_view address) {
  const std::string_view rest = place_on_hub(address);
  const size_t slash = rest.find('/');
  if (slash == rest.npos) return "";
  const std::string name(rest.substr(0, rest.find_first_of("/?#", slash + 1)));
  for (const char* page : {"/tree", "/blob", "/resolve"})  // of a model without ORG
    if (name.substr(slash) == page) return "";
  return is_hub_name(name) ? name : "";
}

bool is_address(std::string_view path) {
  for (const std::string_view scheme :
       {"https://", "http://", "hf://", "s3://", "gs://", "file://"})
    if (path.starts_with(scheme)) return true;
  return false;
}

std::string describe_file(const std::string& path) {
  constexpr size_t kHeadBytes = 256;
  Result<FileReader> file = FileReader::open(path);
  if (!file) return file.error().message.substr(path.size() + 2);  // "PATH: why"
  std::string head(kHeadBytes, '\0');
  head.resize(file->read(head.data(), head.size()).value_or(0));
  if (const std::string what = stands_for(head); !what.empty()) return what;
  if (head.starts_with("GGUF"))
    return fmt::format("is a GGUF file, not a directory; `{}` makes one of it",
                       command_to_convert(path));
  if (path.ends_with(".gguf"))
    return fmt::format("is {}, whatever its name says: fetch it again",
                       head.empty() ? "empty" : "no GGUF file: it does not begin as one");
  const std::string folder = parent_folder(path);
  if (has(folder, kConfig))
    return fmt::format("is a file, not a directory; the model directory is its folder, {}", folder);
  return fmt::format("is a file, not a directory; a model directory has {}", kConfig);
}

/// Weights or parts of a model that are there in a form that Ferry does not read.
std::string other_formats(const std::string& folder) {
  const std::vector<std::string> names = names_in(folder);
  const auto any = [&](auto&& is) { return std::any_of(names.begin(), names.end(), is); };
  if (any([](const std::string& n) { return n == "adapter_config.json"; }))
    return fmt::format(
        "it holds an adapter (LoRA), which is no model: give its base model, and --adapter {}, or "
        "make one model of the two: ferry convert BASE --adapter {} --out DIR",
        shell_quoted(folder),
        shell_quoted(folder));
  if (const auto gguf = std::find_if(
          names.begin(), names.end(), [](const std::string& n) { return n.ends_with(".gguf"); });
      gguf != names.end()) {
    const std::string file = join_path(folder, *gguf);
    return fmt::format("it holds a GGUF file: name the file, {}, or make a directory of it: `{}`",
                       file,
                       command_to_convert(file));
  }
  if (any([](const std::string& n) { return n == "zero_to_fp32.py"; }))
    return fmt::format(
        "it holds a checkpoint of DeepSpeed, in parts for each process: make weights of it "
        "(python3 {} {} OUT --safe_serialization) and put them beside the model's config.json and "
        "tokenizer.json",
        shell_quoted(join_path(folder, "zero_to_fp32.py")),
        shell_quoted(folder));
  if (any([](const std::string& n) {
        return n.starts_with("consolidated") && n.ends_with(".pth");
      }))
    return "it holds weights in Meta's own form; Ferry reads the Hugging Face layout: fetch "
           "config.json, *.safetensors and tokenizer.json of the same model";
  if (any([](const std::string& n) {
        return n.ends_with(".bin") || n.ends_with(".pt") || n.ends_with(".pth");
      }))
    return "it holds PyTorch's pickled weights; Ferry reads *.safetensors: save the model again "
           "with save_pretrained(safe_serialization=True)";
  return "";
}

/// Weights of msModelSlim's (checkpoint/quant_description.h) that are there although no file of that name was found.
/// `found`: the safetensors among `names`.
std::string codes_not_read(const std::vector<std::string>& names,
                           const std::vector<std::string>& found) {
  constexpr std::string_view kDescription = "quant_model_description";
  const auto description = std::find_if(names.begin(), names.end(), [&](const std::string& n) {
    return n.starts_with(kDescription) && n.ends_with(".json");
  });
  if (description == names.end())
    return fmt::format(
        "{} is here, and quant_model_description.json, in which msModelSlim says what its codes "
        "mean, is not: fetch it, too",
        found[0]);
  if (*description != kQuantDescriptionName && *description != kOldQuantDescriptionName)
    return fmt::format(
        "{} and {} are here, which msModelSlim wrote of another kind than Ferry reads, or under "
        "other names: it reads "
        "W8A8_DYNAMIC, described in {} or {}",
        found[0],
        *description,
        kQuantDescriptionName,
        kOldQuantDescriptionName);
  if (const size_t part = found[0].find("-0");
      part != std::string::npos && found[0].find("-of-") != std::string::npos)
    return fmt::format(
        "{} and {} of weights are here ({}, ...), and the index that says which tensor lies where "
        "is not: fetch "
        "{}.safetensors.index.json, too",
        *description,
        counted(found.size(), "part"),
        found[0],
        found[0].substr(0, part));
  return fmt::format(
      "{} and {} are here: weights that it describes are called quant_model_weights.safetensors or "
      "quant_model_weight_w8a8_dynamic.safetensors; rename the file if it is these",
      *description,
      found[0]);
}

/// Safetensors that are there under names that a model directory has not.
std::string other_safetensors(const std::vector<std::string>& names) {
  std::vector<std::string> found;
  for (const std::string& n : names)
    if (n.ends_with(".safetensors") && !n.starts_with("adapter_")) found.push_back(n);
  if (found.empty()) return "";
  if (found[0].starts_with(kCodes)) return codes_not_read(names, found);
  const bool shards = std::any_of(
      found.begin(), found.end(), [](const std::string& n) { return n.find("-of-") != n.npos; });
  if (shards)
    return fmt::format(
        "its {} parts ({}, ...) are here, and the index that says which tensor lies where is not: "
        "fetch or save model.safetensors.index.json, too",
        found.size(),
        found[0]);
  if (found[0].starts_with("consolidated"))
    return fmt::format(
        "{} holds weights under Mistral's own names; Ferry reads the Hugging Face layout: fetch "
        "that, or convert it with Transformers",
        found[0]);
  return fmt::format("{} is here: if it is the whole model, rename it to model.safetensors",
                     found[0]);
}

/// Of checkpoint-100 and checkpoint-1000, as Transformers' Trainer and those built on it write them, the
/// second; empty if there is none.
std::string newest_checkpoint(const std::string& folder) {
  std::string newest;
  int64_t most = -1;
  constexpr std::string_view kPrefix = "checkpoint-";
  for (const std::string& path : folders_in(folder, kPrefix)) {
    const std::string_view digits =
        std::string_view(path).substr(path.rfind('/') + 1 + kPrefix.size());
    int64_t step = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
    if (error != std::errc() || end != digits.data() + digits.size() || step < most) continue;
    most = step;
    newest = path;
  }
  return newest;
}

/// What is a part of a model directory, or of something that holds one; empty if this is none.
std::string describe_part(const std::string& path) {
  const std::string name = last_name(path), parent = parent_of(path);
  for (const char* part : {"blobs", "refs", "snapshots"})
    if (name == part && (has(parent, "snapshots") || has(parent, "blobs")))
      return fmt::format("is a part of {}, which {}", parent, describe_cache(parent));
  if (name == "state" && has(parent, kConfig))
    return fmt::format("is the training state of a checkpoint; the model directory is {}", parent);
  return "";
}

std::string describe_folder(const std::string& path) {
  if (int{has(path, "snapshots")} + int{has(path, "refs")} + int{has(path, "blobs")} >= 2)
    return describe_cache(path);
  if (const std::string part = describe_part(path); !part.empty()) return part;
  for (const std::string& hub : {path, join_path(path, "hub")})
    if (const auto models = folders_in(hub, "models--"); !models.empty())
      return fmt::format("is the hub's cache of {}; {} {}",
                         counted(models.size(), "model"),
                         models[0],
                         describe_cache(models[0]));
  if (const auto steps = folders_in(path, "step-"); !steps.empty())
    return fmt::format("is the folder of a run; its newest model directory is {}", steps.back());
  if (has(path, "manifest.json")) return "is a dataset that Ferry prepared, not a model";
  if (const std::string formats = other_formats(path); !formats.empty())
    return fmt::format("has no {}: {}", kConfig, formats);
  if (const std::string newest = newest_checkpoint(path); !newest.empty())
    return fmt::format("is a folder of checkpoints; the newest is {}", newest);
  const std::string original = join_path(path, "original");
  if (const std::string formats = is_folder(original) ? other_formats(original) : "";
      !formats.empty())
    return fmt::format("has no {}; of original/: {}", kConfig, formats);
  for (const std::string& folder : folders_in(path, ""))
    if (has(folder, kConfig))
      return fmt::format("is no model directory: it has no {}, but {} has one", kConfig, folder);
  return fmt::format("is no model directory: it has no {}{}", kConfig, why_missing(path, kConfig));
}

}  // namespace

std::string command_to_convert(const std::string& gguf) {
  return fmt::format("ferry convert {} --to f32 --out DIR", shell_quoted(gguf));
}

std::string instead_of_model_dir(const std::string& path) {
  if (is_folder(path)) return describe_folder(path);
  if (path_exists(path)) return describe_file(path);
  if (const std::string target = link_target(path); !target.empty())
    return fmt::format("is a link to {}, which is not there", target);
  if (is_address(path)) {
    for (const auto& [place, what] : {std::pair{"datasets/", "a dataset"}, {"spaces/", "a space"}})
      if (place_on_hub(path).starts_with(place))
        return fmt::format("is the address of {} on the hub, not of a model", what);
    const std::string name = hub_name_in(path);
    return fmt::format(
        "is an address, and Ferry fetches nothing: fetch the model ({}) and name its folder",
        name.empty() ? "as that place says"
                     : fmt::format("`hf download {} --local-dir DIR`", name));
  }
  if (is_hub_name(path))
    return fmt::format(
        "no such model directory; if it is a model's name on the hub, fetch it (`hf download {} "
        "--local-dir DIR`) and name DIR",
        path);
  return "no such model directory";
}

std::string why_missing(const std::string& folder, const std::string& name) {
  if (const std::string target = link_target(join_path(folder, name)); !target.empty())
    return fmt::format(
        "; it is a link to {}, which is not there: the download was not finished, or the hub's "
        "cache was cleaned: fetch the model again",
        target);
  // The hub's own cache keeps unfinished files among the blobs; --local-dir keeps them here.
  for (const char* downloads : {"../../blobs", ".cache/huggingface/download"}) {
    const std::string where = join_path(folder, downloads);
    const std::vector<std::string> names = names_in(where);
    const auto unfinished = std::count_if(names.begin(), names.end(), [](const std::string& n) {
      return n.ends_with(".incomplete");
    });
    if (unfinished > 0)
      return fmt::format(
          "; {} of its downloads are not finished ({}/*.incomplete): fetch the model again, what "
          "is "
          "there is kept",
          unfinished,
          where);
  }
  // What else there is explains that there are no weights, and no other file's absence, nor that of one shard.
  if (!name.ends_with(".safetensors") || has(folder, kIndex) || name.starts_with(kCodes)) return "";
  const std::string weights = other_safetensors(names_in(folder));
  if (!weights.empty()) return "; " + weights;
  const std::string formats = other_formats(folder);
  return formats.empty() ? "" : "; " + formats;
}

std::string why_no_tensor(const std::vector<std::string>& names, const std::string& name) {
  for (const std::string& n : names)
    if (n.size() > name.size() && n.ends_with("." + name))
      return fmt::format(
          "; it is there as \"{}\": torch.compile (_orig_mod.), DataParallel (module.) and other "
          "wrappers put such a prefix before every name: save the model that lies within",
          n);
  constexpr std::string_view kBase = "model.";
  if (name.starts_with(kBase))
    for (const std::string& n : names)
      if (n == name.substr(kBase.size()))
        return fmt::format(
            "; it is there as \"{}\": the weights are of the model without its head (AutoModel); "
            "save what AutoModelForCausalLM loads",
            n);
  constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
  if (name == "lm_head.weight" && std::find(names.begin(), names.end(), kEmbedding) != names.end())
    return "; if the model's head is its embedding, config.json must say so "
           "(\"tie_word_embeddings\": true); else it was "
           "saved without its head: save what AutoModelForCausalLM loads";
  const size_t experts = name.find(".experts.");
  for (const std::string& n : names)
    if (experts != name.npos && n.starts_with(name.substr(0, experts) + ".experts.gate_up_proj"))
      return fmt::format(
          "; \"{}\" is there: experts that were fused in another way than Transformers 5 does it, "
          "or as codes: save the model again with each expert's matrices",
          n);
  constexpr std::string_view kScale = "_scale_inv";
  if (!name.ends_with(kScale)) return "";
  const std::string weight = name.substr(0, name.size() - kScale.size());
  for (const std::string& n : names)
    if (n == weight + "_scale")
      return fmt::format(
          "; \"{}\" is there: float8 with another scaling than DeepSeek's, which Ferry does not "
          "read: convert the weights to bf16 first",
          n);
  return "";
}

}  // namespace ferry
