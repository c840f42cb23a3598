#include "rl/loop.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "base/calendar.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/counted.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/patient_output.h"
#include "base/random.h"
#include "base/signature.h"
#include "base/system.h"
#include "base/units.h"
#include "data/permutation.h"
#include "device/cpu/cpu_device.h"
#include "device/require_memory.h"
#include "models/registry.h"
#include "probe/directory_model.h"
#include "rl/policy_step.h"
#include "rl/rewards.h"
#include "rl/rollout_model.h"
#include "rl/score.h"
#include "train/estimate.h"
#include "train/metrics.h"
#include "train/model_setup.h"
#include "train/progress.h"
#include "train/refusals.h"
#include "train/run_begin.h"
#include "train/run_folder.h"
#include "train/run_passport.h"
#include "train/run_save.h"

namespace ferry::rl {
namespace {

using supervisor::Work;

constexpr size_t kSamplesShown = 8;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// The answers to one task.
struct Group {
  size_t task = 0;
  std::vector<uint64_t> seeds;  // of each answer
  std::vector<Rollout> rollouts;
  std::vector<double> worth;    // of each answer, by the task's check
  std::vector<double> rewards;  // of that, and of form
};

bool differ(const std::vector<double>& values) {
  return std::any_of(values.begin(), values.end(), [&](double v) { return v != values[0]; });
}

/// What was drawn for a step. Sums are over all of it, whatever is learnt from: those of the groups that dynamic
/// sampling keeps would be of a selection.
struct Drawn {
  std::vector<Group> groups;      // to learn from
  int64_t drawn = 0, useful = 0;  // groups
  int64_t answers = 0, right = 0, empty = 0, tokens = 0;
  double reward = 0;
  ProgramTally programs;

  void add(const Drawn& round) {
    drawn += round.drawn;
    useful += round.useful;
    answers += round.answers;
    right += round.right;
    empty += round.empty;
    tokens += round.tokens;
    reward += round.reward;
    programs.add(round.programs);
  }
};

void copy_weights(models::CausalLm& from, models::CausalLm& to) {
  const std::vector<Weight*> sources = from.weights(), targets = to.weights();
  for (size_t i = 0; i < sources.size(); ++i) {
    to.device().copy(targets[i]->value.data(), sources[i]->value.data(), sources[i]->value.bytes());
    targets[i]->changed();
  }
  to.device().stream().synchronize();
}

/// Of the tasks, and of how the model is asked: another template or day, another hash.
std::string fingerprint_of(std::span<const Task> tasks, std::span<const TaskPrompt> prompts) {
  Hasher hash;
  for (size_t t = 0; t < tasks.size(); ++t) {
    const std::string line = to_json_line(tasks[t], false) + "\n";
    hash.update(line.data(), line.size());
    const uint64_t tokens = prompts[t].ids.size();
    hash.update(&tokens, sizeof tokens);
    hash.update(prompts[t].ids.data(), tokens * sizeof(int32_t));
  }
  return hash.hex();
}

/// Of all files in a folder, by their names and what they say. What cannot be read counts by its name: nor can the
/// program, which is run as the same user, or as nobody.
Result<std::string> fingerprint_of_folder(const std::string& folder) {
  Hasher hash;
  std::vector<std::string> left = {""};  // folders below it
  while (!left.empty()) {
    const std::string at = std::move(left.back());
    left.pop_back();
    const Result<std::vector<std::string>> names = list_folder(join_path(folder, at));
    if (!names) continue;
    for (const std::string& name : *names) {
      still_alive();
      const std::string path = at.empty() ? name : join_path(at, name),
                        whole = join_path(folder, path);
      hash.update(path.c_str(), path.size() + 1);
      std::error_code none;
      if (std::filesystem::is_symlink(whole, none)) {
        const std::string target = link_target(whole);
        hash.update(target.c_str(), target.size() + 1);
      } else if (is_folder(whole)) {
        left.push_back(path);
      } else if (std::filesystem::is_regular_file(whole, none)) {
        Result<FileReader> reader = FileReader::open(whole);
        if (!reader) continue;
        TRY_ASSIGN(const uint64_t size, file_size(whole));
        hash.update(&size, sizeof size);
        std::vector<char> block(1 << 20);
        for (size_t got = 1; got > 0;) {
          TRY_ASSIGN(got, reader->read(block.data(), block.size()));
          hash.update(block.data(), got);
          still_alive();
        }
      }
    }
  }
  return hash.hex();
}

class Run {
 public:
  Run(const Settings& settings, const TrainOptions& options)
      : settings_(settings),
        rl_(settings_.rl),
        options_(options),
        beats_(options.beat, system_clock()),
        output_(options.out, tells_that_reader_left(settings.checkpoint.dir)) {
    settings_.train.mla_form = "absorbed";  // what a cache holds: rollouts and training agree in it
  }

  Result<Learnt> go() {
    Result<void> done = prepare();
    if (done && !stopping()) done = steps();
    progress_.reset();
    while (!output_.flush(0.2)) still_alive();
    TRY(done);
    return result();
  }

 private:
  Result<void> prepare();
  Result<void> read();
  Result<void> make_reference();
  Result<void> make_rollout_model();
  Result<void> announce();
  Result<void> announce_work();
  Result<void> steps();
  Result<void> one_step();
  Result<Drawn> draw();
  bool tells(const Group& group) const;
  Result<Drawn> groups_at(int64_t position, int64_t count);
  Result<void> count_programs(const ProgramTally& batch);
  double reward(double worth, const AnswerParts& parts, const Rollout& rollout) const;
  static void note_mismatch(const Mismatch& m, const WeightTransfer& sent, StepRecord& to);
  void warn_of_growth(double rollout_kl);
  Result<void> stop_apart(const Mismatch& m,
                          StepRecord record,
                          std::span<const RolloutRequest> requests);
  std::string what_parts(const Mismatch& m, std::span<const RolloutRequest> requests);
  Result<void> evaluate();
  Result<void> write_samples(const std::vector<TaskScore>& scores) const;
  void tell(const std::optional<std::string>& news);
  /// The last one waits until the disk has room for it.
  Result<void> save(bool last);
  bool is_last() const { return state_.step == settings_.train.steps; }
  Learnt result() const;
  bool evaluates_at(int64_t step) const {
    const int64_t e = settings_.train.evaluate_every;
    return step == 0 || step == settings_.train.steps || (e > 0 && step % e == 0);
  }
  engine::EngineOptions engine_options(int64_t longest_prompt) const;
  RolloutOptions rollout_options(bool with_log_probs);
  void set_replay(bool on) {
    for (Device* device : {device_, &drawing().device()}) device->set_replay(on);
  }
  models::CausalLm& drawing() { return rollouts_ ? rollouts_->model() : *model_; }
  bool stopping() const { return options_.stop != nullptr && options_.stop->load(); }
  void say(const std::string& text) { output_.write(text + "\n"); }
  /// Whether the last error only says that the run is to stop.
  bool cut_short(const Status& why) const { return stopping() && why.code == Code::kTimeout; }

  Settings settings_;
  const RlSettings& rl_;
  const TrainOptions& options_;
  const Clock& clock_ = system_clock();
  Beats beats_;
  PatientOutput output_;
  Device* device_ = nullptr;
  std::optional<RunFolder> folder_;
  RunData data_;
  std::vector<Task> tasks_, held_out_;
  std::vector<TaskPrompt> prompts_, held_out_prompts_;
  std::optional<Judge> judge_;
  std::optional<ScriptShare> script_;
  std::unique_ptr<models::TrainableLm> model_, reference_;
  std::unique_ptr<RolloutModel> rollouts_;  // where another device draws the answers
  ModelTexts texts_;
  std::unique_ptr<TrainedAdapter> adapter_;
  std::optional<Optimizer> optimizer_;
  std::optional<TrainStep> step_;
  std::optional<PolicyStep> policy_;
  std::optional<MetricsLog> metrics_;
  std::optional<Progress> progress_;
  Schedule schedule_;
  RunState state_;
  int64_t longest_prompt_ = 0, longest_held_out_ = 0;
  int64_t saved_step_ = -1;
  int64_t own_steps_ = 0, own_tokens_ = 0;
  double own_seconds_ = 0;
  std::optional<double> last_reward_, last_loss_;
  bool growth_told_ = false;
  ProgramTally programs_;  // of this part of the run
  Refusals refusals_;
};

Result<void> Run::prepare() {
  if (rl_.tasks.empty())
    return fail(Code::kInvalidInput,
                "rl.tasks is not set; it must name a file of tasks (ferry tasks makes some)");
  if (settings_.train.threads > 0) set_cpu_threads(static_cast<int>(settings_.train.threads));
  TRY(signing_key(settings_.checkpoint));
  TRY_ASSIGN(device_, open_device(settings_.train.device));
  if (options_.replay_to > 0) device_->set_replay(true);
  const auto tell = [this](const std::string& text) { say(text); };
  TRY_ASSIGN(folder_, enter_run_folder(settings_.checkpoint.dir, options_.resume, tell));
  beats_.begin(Work::kReadingData);
  TRY(read());
  schedule_ = schedule_of(settings_);
  if (stopping()) return {};
  TRY_ASSIGN(Beginning begun, begin_run(settings_, options_.resume, data_, *device_, beats_, tell));
  model_ = std::move(begun.model);
  adapter_ = std::move(begun.adapter);
  optimizer_ = std::move(begun.optimizer);
  state_ = std::move(begun.state);
  saved_step_ = begun.saved_step;
  const int64_t longest = std::max(longest_prompt_, longest_held_out_);
  if (longest + rl_.tokens_max > model_->max_positions())
    return fail(
        Code::kInvalidInput,
        "rl.tokens_max {}: with the longest prompt, {} tokens, it is more than the model's {} "
        "positions",
        rl_.tokens_max,
        longest,
        model_->max_positions());
  TRY(make_reference());
  TRY(make_rollout_model());
  if (stopping()) return {};
  TRY(announce());
  StepSettings step = step_settings(settings_.train);
  step.mla_form = models::MlaForm::kAbsorbed;
  step_.emplace(*model_, *optimizer_, step, nullptr, adapter_.get());
  policy_.emplace(
      *model_,
      *step_,
      reference_.get(),
      PolicyStepSettings{.loss = {.clip_low = rl_.clip_low,
                                  .clip_high = rl_.clip_high,
                                  .kl = rl_.kl == "k3"         ? KlTerm::kK3
                                        : rl_.kl == "unbiased" ? KlTerm::kUnbiased
                                                               : KlTerm::kNone,
                                  .kl_weight = rl_.kl_weight,
                                  .normalise = rl_.normalise == "token"      ? Normalise::kToken
                                               : rl_.normalise == "sequence" ? Normalise::kSequence
                                                                             : Normalise::kConstant,
                                  .tokens_max = rl_.tokens_max,
                                  .off_policy_mask = rl_.off_policy_mask,
                                  .importance_cap = rl_.importance_cap},
                         .minibatches = rl_.minibatches,
                         .micro_batch_tokens = settings_.train.micro_batch_tokens,
                         .keep_routing = rl_.keep_routing,
                         .drawn_elsewhere = rollouts_ != nullptr,
                         .mismatch_max = rl_.mismatch_max});
  TRY_ASSIGN(
      metrics_,
      MetricsLog::open(settings_.checkpoint.dir, state_.step, settings_.log.tensorboard, clock_));
  progress_.emplace(ProgressSettings{.steps = settings_.train.steps, .every = settings_.log.every},
                    output_,
                    Terminal::of(options_.out),
                    settings_.log.colour);
  for (const std::string& note : metrics_->notes()) progress_->note("note       " + note);
  return {};
}

/// Tasks, and what the model's files say of text.
Result<void> Run::read() {
  TRY_ASSIGN(tasks_, read_tasks(rl_.tasks));
  TRY_ASSIGN(held_out_, read_tasks(rl_.held_out));
  if (std::ssize(held_out_) > rl_.evaluate_tasks)
    held_out_.resize(static_cast<size_t>(rl_.evaluate_tasks));
  for (const std::string& doubt : doubts_of(tasks_, rl_.tasks, held_out_, rl_.held_out))
    say("note       " + doubt);
  if (rl_.reward_script > 0) {
    TRY_ASSIGN(script_, ScriptShare::of(rl_.script));
  }
  std::optional<ProgramJudge> program;
  if (!rl_.program.empty()) {
    TRY_ASSIGN(program,
               ProgramJudge::create({.command = rl_.program,
                                     .folder = rl_.program_folder,
                                     .seconds = rl_.program_seconds,
                                     .memory_mb = rl_.program_memory_mb,
                                     .at_once = cpu_pool().threads()}));
    if (const std::string weak = program->weakness(); !weak.empty()) say("note       " + weak);
  }
  std::string program_files;
  if (!rl_.program.empty() && !rl_.program_folder.empty()) {
    TRY_ASSIGN(program_files, fingerprint_of_folder(rl_.program_folder));
  }
  TRY(Judge::create(program, held_out_, rl_.held_out));
  TRY_ASSIGN(judge_, Judge::create(std::move(program), tasks_, rl_.tasks));
  // Answers are drawn as the model will be asked that the checkpoints hold.
  TRY_ASSIGN(AskedData asked, data_as_asked(settings_, options_.resume));
  texts_ = std::move(asked.texts);
  data_ = std::move(asked.data);
  const std::string& from = asked.directory;
  const std::optional<Moment> noon = noon_of(rl_.date);
  check(noon.has_value(), "rl.date {} was not checked", rl_.date);
  TRY_ASSIGN(prompts_, prompts_of(tasks_, texts_, from, *noon));
  TRY_ASSIGN(held_out_prompts_, prompts_of(held_out_, texts_, from, *noon));
  if (are_dated(tasks_, prompts_, texts_, *noon))
    say(fmt::format("note       the chat template asks for the date: it is told {} (rl.date)",
                    rl_.date));
  data_.place = rl_.tasks;
  data_.setting = "rl.tasks";
  data_.fingerprint = fingerprint_of(tasks_, prompts_);
  data_.held_out_fingerprint = fingerprint_of(held_out_, held_out_prompts_);
  data_.program_fingerprint = program_files;
  for (const TaskPrompt& p : prompts_)
    longest_prompt_ = std::max(longest_prompt_, std::ssize(p.ids));
  for (const TaskPrompt& p : held_out_prompts_)
    longest_held_out_ = std::max(longest_held_out_, std::ssize(p.ids));
  for (size_t i = 0; i < std::min<size_t>(2, held_out_prompts_.size()); ++i)
    data_.held_out.push_back(held_out_prompts_[i].ids);
  return {};
}

/// A copy of the weights that the run begins with, or of those that the checkpoint kept.
Result<void> Run::make_reference() {
  if (rl_.kl == "none") return {};
  TRY_ASSIGN(reference_,
             models::make_model(model_->config_json("float32"),
                                "the run's model",
                                *device_,
                                model_->compute(),
                                DType::kF32));
  state_.reference = reference_.get();
  if (saved_step_ >= 0)
    return restore_reference(checkpoint_path(settings_.checkpoint.dir, saved_step_), *reference_);
  copy_weights(*model_, *reference_);
  return {};
}

/// A copy on the device that draws, if that is another one than trains.
Result<void> Run::make_rollout_model() {
  if (rl_.rollout_device.empty()) return {};
  TRY_ASSIGN(Device* const device, open_device(rl_.rollout_device));
  if (device == device_) {
    say(
        fmt::format("note       rl.rollout_device {} is the device that trains: the weights that "
                    "are trained draw the "
                    "answers, and nothing is sent or measured",
                    rl_.rollout_device));
    return {};
  }
  if (options_.replay_to > 0) device->set_replay(true);
  TRY_ASSIGN(rollouts_, RolloutModel::make(*model_, *device));
  return {};
}

engine::EngineOptions Run::engine_options(int64_t longest_prompt) const {
  const int64_t pages = models::pages_for(longest_prompt + rl_.tokens_max);
  return {.cache_tokens = rl_.running * (pages + 1) * models::kPageTokens, .running = rl_.running};
}

/// Time, memory and disk, as of training; refused if they are not there. Of answers as long as they may be.
Result<void> Run::announce_work() {
  const int64_t answers = rl_.groups_per_step * rl_.group_size;
  Settings as_estimated = settings_;
  TrainSettings& t = as_estimated.train;
  as_estimated.data.sequence_length = longest_prompt_ + rl_.tokens_max;
  t.tokens_per_step = answers * as_estimated.data.sequence_length;
  t.micro_batch_tokens = std::max(t.micro_batch_tokens, as_estimated.data.sequence_length);
  t.mtp_weight = 0;
  const uint64_t model_bytes = bytes_needed(
      adapter_ ? adapter_contents(*adapter_) : model_contents(*model_, &texts_, data_, settings_));
  const uint64_t state_bytes =
      bytes_needed(state_contents(*model_, *optimizer_, state_, data_, settings_));
  Estimate e = estimate(*model_,
                        as_estimated,
                        state_.step,
                        adapter_.get(),
                        optimizer_->state_bytes(),
                        model_bytes + state_bytes,
                        measure_peak(*device_, model_->compute()));
  // Beside what is learnt: the answers are drawn, as often as dynamic sampling may, and scored by the reference, and
  // before later minibatches.
  const int64_t passes = 1 + rl_.dynamic_sampling + (reference_ != nullptr) +
                         (rollouts_ != nullptr || rl_.minibatches > 1);
  add_scoring(e, *model_, as_estimated, passes * e.steps_left * t.tokens_per_step);
  say(describe(e, as_estimated));
  say(fmt::format(
      "note       that is of answers of rl.tokens_max{}; drawing them, token by token, reaches "
      "less "
      "of the rate",
      rl_.dynamic_sampling > 0 ? ", drawn as often as rl.dynamic_sampling lets them" : ""));
  return outlive_full_disk(
      check_still_fits(
          e, as_estimated, *device_, {.model_bytes = model_bytes, .state_bytes = state_bytes}, 1),
      options_.follows,
      [this](const std::string& text) { say(text); });
}

Result<void> Run::announce() {
  // Held-out answers are drawn where training is.
  for (models::CausalLm* by : {static_cast<models::CausalLm*>(model_.get()), &drawing()}) {
    const engine::Engine engine(*by, engine_options(std::max(longest_prompt_, longest_held_out_)));
    TRY(require_memory(by->device(),
                       static_cast<double>(engine.memory_bytes()),
                       fmt::format("rl.running {}: the cache of so many answers", rl_.running),
                       "lower it"));
  }
  TRY(announce_work());
  say(
      fmt::format("tasks      {} to learn from, {} held out; {} of {} x {} answers of up to {} "
                  "tokens",
                  tasks_.size(),
                  held_out_.size(),
                  counted(settings_.train.steps, "step"),
                  rl_.groups_per_step,
                  rl_.group_size,
                  rl_.tokens_max));
  say(fmt::format("device     {}, {}", device_->describe(), processor_name()));
  if (rollouts_)
    say(fmt::format(
        "rollouts   {}, {}; the run stops where they are more than {} nats a token away",
        drawing().device().name(),
        drawing().device().describe(),
        rl_.mismatch_max));
  if (adapter_) say(describe(*adapter_));
  if (state_.step >= settings_.train.steps)
    say(fmt::format("done       {} made, and train.steps is {}: nothing is left to learn",
                    counted(state_.step, "step is", "steps are"),
                    settings_.train.steps));
  return {};
}

Result<void> Run::steps() {
  beats_.step_done(state_.step);
  if (state_.step >= options_.replay_to && options_.replay_to > 0) set_replay(false);
  // A stop cuts an evaluation short, and a crash may come between it and the checkpoint that is to have
  // its figure: it is made before the run goes on.
  const auto& told = metrics_->metrics().held_out;
  const bool evaluated = !told.empty() && told.back().step == state_.step &&
                         (saved_step_ != state_.step || state_.held_out_loss);
  if (evaluates_at(state_.step) && !evaluated) {
    TRY(evaluate());
    if (saved_step_ == state_.step && state_.held_out_loss) TRY(save(false));
  }
  while (state_.step < settings_.train.steps && !stopping()) {
    const int64_t before = state_.step;
    TRY(one_step());
    if (state_.step == before) break;  // cut short
    if (options_.replay_to == state_.step) set_replay(false);
    const int64_t c = settings_.checkpoint.every;
    if (evaluates_at(state_.step)) TRY(evaluate());
    if (is_last() || (c > 0 && state_.step % c == 0)) TRY(save(is_last()));
  }
  if (stopping() && saved_step_ != state_.step) TRY(save(true));
  tell(metrics_->finish());
  if (programs_.failed() > 0) progress_->note("warning    " + programs_.told());
  return stopping() ? Result<void>() : refusals_.end(state_.step);
}

RolloutOptions Run::rollout_options(bool with_log_probs) {
  RolloutOptions o;
  // The whole distribution of the model, as it is: the one whose log-probabilities are trained.
  o.generate.sampling.temperature = 1;
  o.generate.tokens_max = rl_.tokens_max;
  if (with_log_probs) o.generate.top_log_probs = 0;
  o.on_pass = [this](int64_t done) {
    static_cast<void>(fault_point("rl.rollout"));
    beats_.advance(done);
    still_alive();
    return !stopping();
  };
  return o;
}

double Run::reward(double worth, const AnswerParts& parts, const Rollout& rollout) const {
  double sum = rl_.reward_answer * worth;
  // Form is that of an answer which is there, and which the model ended: what was cut off may only look like one.
  if (parts.well_formed && rollout.finish == engine::Finish::kEnd) sum += rl_.reward_format;
  if (script_ && !parts.answer.empty()) sum += rl_.reward_script * (*script_)(rollout.text);
  return sum + overlong_penalty(std::ssize(rollout.tokens), rl_.tokens_max, rl_.overlong_tokens);
}

/// The groups of the tasks at so many places of their order from `position` on.
Result<Drawn> Run::groups_at(int64_t position, int64_t count) {
  const auto seed = static_cast<uint64_t>(settings_.train.seed);
  const auto n = std::ssize(tasks_);
  Drawn drawn;
  std::vector<Group>& groups = drawn.groups;
  std::vector<RolloutRequest> requests;
  for (int64_t p = position; p < position + count; ++p) {
    const data::Permutation order(
        static_cast<uint64_t>(n),
        Random(seed, RandomPurpose::kShuffle, static_cast<uint64_t>(p / n)));
    groups.push_back({.task = order(static_cast<uint64_t>(p % n))});
    const Random seeds(seed, RandomPurpose::kRollout, static_cast<uint64_t>(p));
    for (int64_t s = 0; s < rl_.group_size; ++s) {
      groups.back().seeds.push_back(seeds.bits(static_cast<uint64_t>(s)));
      requests.push_back({&prompts_[groups.back().task], groups.back().seeds.back()});
    }
  }
  // What the cache held was computed by other weights: each step has an engine of its own.
  engine::Engine engine(drawing(), engine_options(longest_prompt_));
  TRY_ASSIGN(std::vector<Rollout> rollouts,
             roll_out(engine, requests, texts_, rollout_options(true)));
  std::vector<AnswerParts> parts;
  std::vector<Judge::Asked> asked;
  const auto each = static_cast<size_t>(rl_.group_size);
  const auto task_of = [&](size_t i) { return groups[i / each].task; };
  for (size_t i = 0; i < rollouts.size(); ++i)
    parts.push_back(take_apart(rollouts[i].text, prompts_[task_of(i)].thinking));
  for (size_t i = 0; i < rollouts.size(); ++i)
    asked.push_back({&tasks_[task_of(i)], &parts[i], &rollouts[i].text});
  static_cast<void>(fault_point("rl.judge"));
  TRY_ASSIGN(const Judge::Judged judged, judge_->judge(asked, [this] {
    still_alive();
    return !stopping();
  }));
  TRY(count_programs(judged.programs));
  drawn.programs = judged.programs;
  drawn.answers = std::ssize(rollouts);
  for (size_t i = 0; i < rollouts.size(); ++i) {
    Group& g = groups[i / each];
    still_alive();  // a script's share is counted letter by letter
    g.worth.push_back(judged.worth[i]);
    g.rewards.push_back(reward(judged.worth[i], parts[i], rollouts[i]));
    drawn.reward += g.rewards.back();
    drawn.right += judged.worth[i] == 1;
    drawn.empty += parts[i].answer.empty();
    drawn.tokens += std::ssize(rollouts[i].tokens);
    g.rollouts.push_back(std::move(rollouts[i]));
  }
  drawn.drawn = count;
  drawn.useful =
      std::count_if(groups.begin(), groups.end(), [&](const Group& g) { return tells(g); });
  return drawn;
}

/// Whether a group's answers are not all as good as each other: of rules, whether 0 < right < all (DAPO equation 11).
/// A form that some of the wrong ones have is no reason to keep a group, unless only form is rewarded.
bool Run::tells(const Group& group) const {
  return differ(rl_.reward_answer > 0 ? group.worth : group.rewards);
}

/// Tells of programs that judged answers and gave no verdict, once. Where that is all that the first ones did, the
/// command is wrong: the run ends before it learns of that.
Result<void> Run::count_programs(const ProgramTally& batch) {
  // Of the whole run: what goes on after an interruption meets what it would have met without one.
  const bool first = programs_.judged() == 0 && state_.step == 0;
  const bool told = programs_.failed() > 0;
  programs_.add(batch);
  if (first && batch.is_broken())
    return fail(Code::kInvalidInput, "rl.program: no answer was judged: {}", batch.told());
  if (!told && batch.failed() > 0) progress_->note("warning    " + batch.told());
  return {};
}

/// The groups of a step, and moves on in the order of tasks. With dynamic sampling groups that tell nothing
/// make place for the next ones, as often as it may be; the last round's are taken as they are.
Result<Drawn> Run::draw() {
  Drawn all;
  for (int64_t round = 0;; ++round) {
    TRY_ASSIGN(Drawn drawn,
               groups_at(state_.position, rl_.groups_per_step - std::ssize(all.groups)));
    state_.position += drawn.drawn;
    all.add(drawn);
    for (Group& g : drawn.groups)
      if (round == rl_.dynamic_sampling || tells(g)) all.groups.push_back(std::move(g));
    if (std::ssize(all.groups) == rl_.groups_per_step) return all;
  }
}

Result<void> Run::one_step() {
  const double begin_s = clock_.monotonic_s();
  const int64_t position = state_.position;
  beats_.begin(own_steps_ == 0 ? Work::kFirstStep : Work::kTraining,
               rl_.groups_per_step * rl_.group_size,
               supervisor::Unit::kAnswers);
  const OpsAlive alive;
  if (reference_ && rl_.reference_every > 0 && state_.step > 0 &&
      state_.step % rl_.reference_every == 0)
    copy_weights(*model_, *reference_);
  WeightTransfer sent;
  if (rollouts_) {
    TRY_ASSIGN(sent, rollouts_->renew());
  }
  const Result<Drawn> drawn = draw();
  if (!drawn) {
    state_.position = position;  // the step is made again when the run goes on
    if (cut_short(drawn.error())) return {};
    return tl::unexpected(drawn.error());
  }
  const std::vector<Group>& groups = drawn->groups;
  StepRecord record;
  const auto answers = static_cast<double>(drawn->answers);
  record.reward = drawn->reward / answers;
  record.right = static_cast<double>(drawn->right) / answers;
  record.answer_tokens = static_cast<double>(drawn->tokens) / answers;
  record.empty_answers = static_cast<double>(drawn->empty) / answers;
  record.groups_drawn = static_cast<double>(drawn->drawn);
  record.useful_groups = static_cast<double>(drawn->useful) / *record.groups_drawn;
  if (drawn->programs.judged() > 0)
    record.program_failed = static_cast<double>(drawn->programs.failed());
  std::vector<Lesson> lessons;
  for (const Group& g : groups) {
    const std::vector<double> worth = advantages(g.rewards, rl_.advantage == "deviation");
    for (size_t s = 0; s < g.rollouts.size(); ++s)
      lessons.push_back({&prompts_[g.task], &g.rollouts[s], worth[s]});
  }
  record.lr = learning_rate_at(schedule_, state_.step);
  const PolicyStepReport report = policy_->run(lessons, record.lr, [] { still_alive(); });
  if (report.too_far) {
    state_.position = position;  // nothing was learnt of these answers
    std::vector<RolloutRequest> requests;
    for (const Group& g : groups)
      for (const uint64_t seed : g.seeds) requests.push_back({&prompts_[g.task], seed});
    record.step = state_.step + 1;
    record.unix_ms = clock_.unix_ms();
    record.tokens = state_.tokens;
    record.loss = record.bits_per_byte = record.gradient_norm = kNone;
    note_mismatch(*report.mismatch, sent, record);
    record.seconds = clock_.monotonic_s() - begin_s;
    record.tokens_per_s = static_cast<double>(drawn->tokens) / record.seconds;
    return stop_apart(*report.mismatch, std::move(record), requests);
  }
  ++state_.step;
  state_.refused += report.refused.has_value();
  state_.tokens += report.tokens;
  record.step = state_.step;
  record.unix_ms = clock_.unix_ms();
  record.tokens = state_.tokens;
  record.loss = report.loss;
  record.bits_per_byte = kNone;
  record.gradient_norm = report.gradient_norm;
  record.updates = static_cast<double>(report.updates);
  record.clipped = report.clipped;
  record.ratio_max = report.ratio_max;
  if (reference_) record.kl = report.kl;
  if (report.mismatch) {
    note_mismatch(*report.mismatch, sent, record);
    warn_of_growth(report.mismatch->kl);
  }
  if (rl_.off_policy_mask > 0) record.masked = static_cast<double>(report.masked);
  record.logprobs_compared = static_cast<double>(report.compared);
  record.logprob_mismatches = static_cast<double>(report.mismatches);
  record.skipped = report.refused;
  record.seconds = clock_.monotonic_s() - begin_s;
  record.tokens_per_s = static_cast<double>(drawn->tokens + report.tokens) / record.seconds;
  state_.seconds += record.seconds;
  state_.held_out_loss.reset();
  own_seconds_ += record.seconds;
  own_tokens_ += drawn->tokens + report.tokens;
  ++own_steps_;
  last_reward_ = record.reward;
  last_loss_ = record.loss;
  tell(metrics_->write(record));
  progress_->step(record);
  beats_.step_done(state_.step);
  if (report.mismatches > 0)
    progress_->note(
        fmt::format("warning    step {}: {} of {} log-probabilities of answers are not what "
                    "training computes",
                    state_.step,
                    report.mismatches,
                    report.compared));
  if (!report.refused || report.updates == 0)
    return refusals_.step(state_.step, report.refused, settings_.checkpoint.dir, *progress_);
  progress_->note(fmt::format("step {}: {} of {} updates made, the others refused: {}",
                              state_.step,
                              report.updates,
                              rl_.minibatches,
                              *report.refused));
  return refusals_.step(state_.step, std::nullopt, settings_.checkpoint.dir, *progress_);
}

void Run::note_mismatch(const Mismatch& m, const WeightTransfer& sent, StepRecord& to) {
  to.rollout_kl = m.kl;
  to.rollout_ratio_max = m.ratio_max;
  to.rollout_capped = m.capped;
  to.rollout_sent_bytes = static_cast<double>(sent.bytes);
}

/// A chip that parts more than it did at first, and less than rl.mismatch_max, is told of once. The first step of the
/// run is the measure: another model, another number.
void Run::warn_of_growth(double rollout_kl) {
  constexpr double kTimes = 20;
  if (growth_told_) return;
  const std::vector<StepRecord>& steps = metrics_->metrics().steps;
  const auto first = std::find_if(
      steps.begin(), steps.end(), [](const StepRecord& s) { return s.rollout_kl.has_value(); });
  if (first == steps.end() || !(rollout_kl > kTimes * *first->rollout_kl)) return;
  growth_told_ = true;
  progress_->note(
      fmt::format("warning    step {}: answers that {} drew are {:.3g} nats a token away from what "
                  "training computes, more than {} "
                  "times as far as at step {}, {:.3g}; rl.mismatch_max ({}) lets it pass: lower it "
                  "to have the op named that parts",
                  state_.step,
                  drawing().device().name(),
                  rollout_kl,
                  kTimes,
                  first->step,
                  *first->rollout_kl,
                  rl_.mismatch_max));
}

/// Ends a run whose rollouts are not what is trained: that is said before anything that may fail, or be stopped.
Result<void> Run::stop_apart(const Mismatch& m,
                             StepRecord record,
                             std::span<const RolloutRequest> requests) {
  const std::string verdict = fmt::format(
      "step {}: rollouts on {} are {:.3g} nats a token away from what training computes on {} "
      "(rl.mismatch_max is {}; the largest ratio is {:.3g}, {:.3g} % of tokens are beyond "
      "rl.importance_cap); nothing was learnt of them",
      record.step,
      drawing().device().name(),
      m.kl,
      device_->name(),
      rl_.mismatch_max,
      m.ratio_max,
      100 * m.capped);
  progress_->note(
      fmt::format("warning    {}; each op that computes one of them is judged now", verdict));
  const auto attempt = [&](const char* what, const std::function<Result<void>()>& work) {
    std::string why;
    try {
      if (const Result<void> done = work(); !done) why = done.error().message;
    } catch (const DeviceError& e) {
      why = e.what();
    }
    if (!why.empty()) progress_->note(fmt::format("warning    {}: {}", what, why));
  };
  if (saved_step_ != state_.step) attempt("the run could not be saved", [&] { return save(true); });
  // Behind what is saved, which has no such step: a run that goes on makes it again, and its record with it.
  record.skipped = fmt::format(
      "nothing was learnt: the answers are {:.3g} nats a token away, and rl.mismatch_max is {}",
      m.kl,
      rl_.mismatch_max);
  tell(metrics_->write(record));
  std::string why = "the judging came to no end";
  attempt("the judging came to no end", [&]() -> Result<void> {
    why = what_parts(m, requests);
    return {};
  });
  return fail(Code::kVerdict, "{}. {}", verdict, why);
}

/// Which op parts the devices: the rollouts' is judged first, then training's, then the pass by which training scores
/// answers, which is held against its own engine, too; on the answer that is furthest away, and then on as many as run
/// at once, whose ops have the shapes of many rows.
std::string Run::what_parts(const Mismatch& m, std::span<const RolloutRequest> requests) {
  constexpr int64_t kTokensOfOne = 64, kTokensOfMany = 8;
  beats_.begin(Work::kEvaluating, 0);
  const std::span<const RolloutRequest> worst = requests.subspan(m.worst, 1);
  const std::span<const RolloutRequest> many =
      requests.first(std::min(requests.size(), static_cast<size_t>(rl_.running)));
  const std::function<bool()> go_on = [this] { return !stopping(); };
  std::string not_given;  // answers, and why
  for (const auto& [of, tokens] : {std::pair{worst, kTokensOfOne}, {many, kTokensOfMany}}) {
    std::vector<Rollout> own;  // training's
    for (models::CausalLm* by : {&drawing(), static_cast<models::CausalLm*>(model_.get())}) {
      const auto answer = [&, by = by, of = of, tokens = tokens] {
        // Where answers cannot be given, the ops up to there are judged.
        auto given = answer_again(*by, of, texts_, rollout_options(true), tokens);
        if (!given && !cut_short(given.error()))
          not_given += fmt::format("{}{} could not give {} of them: {}",
                                   not_given.empty() ? "" : "; ",
                                   by->device().name(),
                                   of.size(),
                                   given.error().message);
        own = given ? *std::move(given) : std::vector<Rollout>();
      };
      if (const auto parting = first_parting(*by, go_on, answer))
        return "the first op that parts: " + *parting;
    }
    std::vector<Lesson> lessons;
    for (size_t i = 0; i < own.size(); ++i) lessons.push_back({of[i].prompt, &own[i], 0});
    int64_t otherwise = 0;
    const auto parting = first_parting(*model_, go_on, [&] {
      otherwise = policy_->scored_otherwise(lessons, [] { still_alive(); });
    });
    if (parting) return "the first op that parts, where training scores answers: " + *parting;
    if (stopping()) return "the judging was stopped before it found an op";
    if (otherwise > 0)
      return fmt::format(
          "it is training that parts: no op left its bounds, but {} log-probabilities of answers "
          "that {} draws itself are not those that it trains by; ferry doctor --device {} "
          "examines it",
          otherwise,
          device_->name(),
          device_->name());
  }
  if (!not_given.empty())
    return fmt::format(
        "no op left its bounds in what was computed, but not all answers were given again: {}. "
        "ferry doctor --device examines each of the two",
        not_given);
  return fmt::format(
      "no op left its bounds there or here in the first {} tokens of the answer that is furthest "
      "away, nor in the first {} of {} answers at once, and what training computes of its own "
      "answers is what it draws them by; no more was looked at. ferry doctor --device examines "
      "each of the two. If both are sound, they round otherwise, and by as much: without "
      "rl.rollout_device nothing parts. A higher rl.mismatch_max lets a defect pass as well",
      std::min(kTokensOfOne, rl_.tokens_max),
      std::min(kTokensOfMany, rl_.tokens_max),
      many.size());
}

/// One answer to each held-out task, drawn as the rollouts are, with the same seeds every time.
Result<void> Run::evaluate() {
  beats_.begin(own_steps_ == 0 ? Work::kFirstEvaluation : Work::kEvaluating,
               std::ssize(held_out_),
               supervisor::Unit::kTasks);
  const OpsAlive alive;
  engine::Engine engine(*model_, engine_options(longest_held_out_));
  const auto scores = score(engine,
                            held_out_,
                            held_out_prompts_,
                            texts_,
                            *judge_,
                            {.samples = 1,
                             .seed = static_cast<uint64_t>(settings_.train.seed),
                             .rollouts = rollout_options(false)});
  if (!scores) {
    if (cut_short(scores.error())) return {};
    return tl::unexpected(scores.error());
  }
  TRY(count_programs(scores->programs));
  const ScoreSummary s = summary(scores->tasks, 1);
  state_.held_out_loss = 1 - s.pass_at_1;
  HeldOutRecord record{.step = state_.step,
                       .unix_ms = clock_.unix_ms(),
                       .loss = 1 - s.pass_at_1,
                       .bits_per_byte = kNone,
                       .score = s.pass_at_1,
                       .score_low = s.interval.low,
                       .score_high = s.interval.high,
                       .answer_tokens = s.mean_tokens};
  if (scores->programs.judged() > 0)
    record.program_failed = static_cast<double>(scores->programs.failed());
  // The record says that the evaluation was made: it comes last.
  if (const Result<void> written = write_samples(scores->tasks); !written)
    progress_->note("warning    answers to read could not be written: " + written.error().message);
  tell(metrics_->write(record));
  progress_->held_out(record, &metrics_->metrics());
  return {};
}

/// What the log of metrics says of itself, if anything.
void Run::tell(const std::optional<std::string>& news) {
  if (news) progress_->note(*news);
}

/// Answers to read: samples/step-00000100.txt.
Result<void> Run::write_samples(const std::vector<TaskScore>& scores) const {
  std::string text;
  for (size_t i = 0; i < std::min(scores.size(), kSamplesShown); ++i) {
    const Task& t = held_out_[i];
    text += fmt::format("=== task {} ({}): {}\n{}\n{}\n\n",
                        i + 1,
                        t.kind.empty() ? "no kind" : t.kind,
                        scores[i].right > 0 ? "right" : "wrong",
                        t.messages.empty() ? t.prompt : t.messages,
                        scores[i].sample);
  }
  const std::string folder = join_path(settings_.checkpoint.dir, kSamplesFolder);
  TRY(make_folders(folder));
  return write_file_atomic(join_path(folder, fmt::format("step-{:08}.txt", state_.step)), text);
}

Result<void> Run::save(bool last) {
  TRY(stay_in_run_folder(
      settings_.checkpoint.dir, *folder_, *metrics_, [this](const std::string& text) {
        progress_->note(text);
      }));
  std::function<bool()> keep_waiting;
  if (last) keep_waiting = [this] { return !stopping(); };
  TRY_ASSIGN(const Saved saved,
             save_run(*model_,
                      &texts_,
                      adapter_.get(),
                      *optimizer_,
                      state_,
                      data_,
                      settings_,
                      metrics_->metrics(),
                      beats_,
                      *progress_,
                      keep_waiting));
  if (saved == Saved::kWhole) saved_step_ = state_.step;
  return {};
}

Learnt Run::result() const {
  Learnt l;
  TrainResult& r = l.run;
  r.stopped = state_.step < settings_.train.steps;
  r.step = state_.step;
  if (saved_step_ >= 0) name_saved(settings_, saved_step_, r);
  r.loss = last_loss_;
  if (own_seconds_ > 0) r.tokens_per_s = static_cast<double>(own_tokens_) / own_seconds_;
  r.seconds = state_.seconds;
  l.reward = last_reward_;
  if (!metrics_) return l;
  double compared = 0, mismatches = 0;
  std::optional<double> programs_failed;
  for (const StepRecord& s : metrics_->metrics().steps) {
    compared += s.logprobs_compared.value_or(0);
    mismatches += s.logprob_mismatches.value_or(0);
    if (s.program_failed) programs_failed = programs_failed.value_or(0) + *s.program_failed;
    if (s.rollout_kl) l.rollout_kl = std::max(l.rollout_kl.value_or(0), *s.rollout_kl);
    if (s.rollout_ratio_max)
      l.rollout_ratio_max = std::max(l.rollout_ratio_max.value_or(1), *s.rollout_ratio_max);
  }
  // A log may have been edited: what is no count in the end is none.
  const auto count = [](double n) {
    return n >= 0 && n <= static_cast<double>(kRunTokensMax) ? static_cast<int64_t>(n) : 0;
  };
  l.compared = count(compared);
  l.mismatches = count(mismatches);
  for (const HeldOutRecord& h : metrics_->metrics().held_out)
    if (h.program_failed) programs_failed = programs_failed.value_or(0) + *h.program_failed;
  if (programs_failed) l.program_failed = count(*programs_failed);
  if (const auto& all = metrics_->metrics().held_out; !all.empty()) {
    if (all.front().step == 0) l.score_before = all.front().score;
    if (all.back().step == state_.step) l.score_after = all.back().score;
  }
  return l;
}

}  // namespace

Result<Learnt> learn(const Settings& settings, const TrainOptions& options) {
  return Run(settings, options).go();
}

}  // namespace ferry::rl
