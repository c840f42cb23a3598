#include "cli/passport_command.h"

#include <fmt/core.h>

#include "base/file.h"
#include "base/version.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/model_texts.h"
#include "cli/command.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "probe/directory_model.h"
#include "probe/probe.h"

namespace ferry::cli {
namespace {

struct Arguments {
  std::string directory, dtype = "bf16", key;
  bool add = false;
};

/// Lists files beside those that the passport has, which must be what it says: the answers that it holds are of
/// these. What is signed is for whoever has the key to add to. Returns their names.
Result<std::vector<std::string>> add_unlisted(Passport& passport,
                                              const std::string& directory,
                                              const std::optional<KeyPair>& key) {
  const std::string path = join_path(directory, kPassportName);
  if (passport.signature && (!key || key->public_key != passport.signature->public_key))
    return fail(
        Code::kInvalidInput,
        "{}: is signed by {}: only who has its secret key can add to what it lists; give it "
        "with --key",
        path,
        passport.signature->public_key);
  Passport now;
  for (const auto& [name, listed] : passport.files) {
    TRY(now.add_file(directory, name));
    if (now.files.at(name) != listed)
      return fail(Code::kCorrupt,
                  "{}: is not the file that {} lists; restore it, or remove {} and have it written "
                  "anew",
                  join_path(directory, name),
                  kPassportName,
                  path);
  }
  TRY_ASSIGN(const std::vector<std::string> names, files_that_count(directory));
  std::vector<std::string> added;
  for (const std::string& name : names) {
    if (passport.files.contains(name)) continue;
    TRY(passport.add_file(directory, name));
    added.push_back(name);
  }
  return added;
}

/// What lies there as made_from.json is stated as it lies there: nobody but verify --source can judge it.
Result<void> state_what_it_was_made_from(Passport& passport, const std::string& directory) {
  const std::string path = join_path(directory, kMadeFromName);
  TRY_ASSIGN(const bool there, is_there(path));
  if (passport.made_from || !there) return {};
  TRY_ASSIGN(const std::string text, read_file(path));
  TRY_ASSIGN(passport.made_from, parse_made_from(text, path));
  return {};
}

/// Signs what is there, or, for a directory that came from elsewhere, makes its passport: hashes of
/// what lies there now, and the answers of the CPU.
Result<void> write_passport(const Arguments& args) {
  print_besides();
  std::optional<KeyPair> key;
  if (!args.key.empty()) {
    TRY_ASSIGN(key, read_secret_key(args.key));
  }
  TRY_ASSIGN(ModelDir dir, ModelDir::open(args.directory));
  for (const std::string& note : dir.notes())
    tell(fmt::format("ferry: note: {}: {}", dir.path(), note));
  const std::string path = join_path(args.directory, kPassportName);
  const bool adds = args.add && dir.passport() != nullptr;
  if (!adds && (dir.has_checksums() || dir.passport() != nullptr)) TRY(dir.verify());
  Passport passport;
  if (adds) {
    passport = *dir.passport();
    TRY_ASSIGN(const std::vector<std::string> added, add_unlisted(passport, args.directory, key));
    const bool stated = passport.made_from.has_value();
    TRY(state_what_it_was_made_from(passport, args.directory));
    if (!stated && passport.made_from) fmt::print("{}: is stated now\n", kMadeFromName);
    for (const std::string& name : added) fmt::print("{}: is listed now\n", name);
    if (added.empty()) fmt::print("every file that counts was listed already\n");
  } else if (dir.passport() != nullptr) {
    if (!key)
      return fail(Code::kInvalidInput,
                  "{}: has one already; give --key to sign it, or remove it first",
                  path);
    passport = *dir.passport();
  } else {
    const DType compute = args.dtype == "f32" ? DType::kF32 : DType::kBF16;
    TRY_ASSIGN(const probe::DirectoryModel opened,
               probe::model_of(dir, cpu_device(), compute, true));
    for (const std::string& note : opened.notes) tell("ferry: note: " + note);
    const std::unique_ptr<models::TrainableLm>& model = opened.model;
    TRY_ASSIGN(const ModelTexts texts, read_model_texts(dir));
    for (const std::string& note : texts.notes) tell("ferry: note: " + note);
    if (texts.tokenizer != nullptr && texts.tokenizer->vocab_size() > model->vocab_size())
      return fail(Code::kInvalidInput,
                  "{}: the tokenizer has {} ids, the model {}: they are not of one model",
                  args.directory,
                  texts.tokenizer->vocab_size(),
                  model->vocab_size());
    TRY_ASSIGN(const auto other,
               probe::sibling(*model, compute == DType::kF32 ? DType::kBF16 : DType::kF32));
    passport.program = fmt::format("ferry {}", kVersion);
    TRY(state_what_it_was_made_from(passport, args.directory));
    passport.probes = probe::record(*model, *other, probe::synthetic_prompts(*model), {});
    TRY_ASSIGN(const std::vector<std::string> names, files_that_count(args.directory));
    for (const std::string& name : names) TRY(passport.add_file(args.directory, name));
  }
  passport.seal(key);
  TRY(write_file_atomic(path, passport.to_json()));
  fmt::print("{}: root {}, {}\n",
             path,
             passport.root,
             key ? "signed by " + key->public_key : "not signed");
  return printed_besides(flush_output());
}

Result<void> make_keys(const std::string& path) {
  print_besides();
  const KeyPair key = new_key_pair();
  TRY(write_key_files(path, key));
  fmt::print(
      "{}: keep it secret; it signs (checkpoint.key, ferry passport --key)\n"
      "{}.pub: give it to whoever verifies (ferry verify --key)\npublic key {}\n",
      path,
      path,
      key.public_key);
  return printed_besides(flush_output());
}

}  // namespace

void add_passport_command(Command& program) {
  Command command =
      program.add("passport", "Write the passport of a model directory that has none, or sign one");
  const auto args = std::make_shared<Arguments>();
  command.option("directory", args->directory, "a model directory").required();
  command.option("--dtype", args->dtype, "the type in which the CPU answers the probes")
      .among({"f32", "bf16"});
  command.option("--key", args->key, "a secret key (ferry keygen) to sign it with");
  command.flag("--add", args->add, "list files, too, that were put into the directory since");
  command.runs([args] { return report(write_passport(*args)); });

  Command keygen = program.add("keygen", "Make a pair of keys for signing passports");
  const auto path = std::make_shared<std::string>();
  keygen.option("file", *path, "the secret key's file; FILE.pub gets the public one").required();
  keygen.runs([path] { return report(make_keys(*path)); });
}

}  // namespace ferry::cli
