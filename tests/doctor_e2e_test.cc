// The built program's doctor, as a person runs it: on the CPU, where there is no chip, and on
// software Ascend with a defect planted.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "program.h"

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Ended {
  int status = -1;
  std::string output;
  Json last;  // the line of JSON that ends it
};

/// Where these doctors note their verdicts: not in the user's own folder.
fs::path state() { return fs::temp_directory_path() / "ferry_doctor_e2e_state"; }

/// `arguments` are the test's own, without anything that a shell would take otherwise.
Ended doctor(const std::string& arguments, const std::string& environment = "") {
  const std::string command = "XDG_STATE_HOME=" + state().string() + " " + environment +
                              " timeout 300 " FERRY_PROGRAM " doctor " + arguments + " 2>&1";
  Ended run;
  FILE* const pipe = ::popen(command.c_str(), "r");
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    run.output.append(buffer, n);
  const int status = ::pclose(pipe);
  run.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  std::istringstream lines(run.output);
  std::string last;
  for (std::string line; std::getline(lines, line);) last = line;
  run.last = Json::parse(last, nullptr, false);
  return run;
}

std::string sim(const std::string& planted = "") {
  return "FERRY_THREADS=1 FERRY_ASCEND_LIBRARIES=" FERRY_ASCEND_SIM " " + planted;
}

TEST(Doctor, ReportsOnTheCpuAndWritesItsFiles) {
  const fs::path folder = fs::temp_directory_path() / "ferry_doctor_e2e";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const Ended run = doctor("--quick --soak 1 --only rope --json " + (folder / "r.json").string() +
                           " --html " + (folder / "r.html").string());
  EXPECT_EQ(run.status, 0) << run.output;
  EXPECT_EQ(run.last.value("verdict", ""), "nothing found") << run.output;  // of one op
  EXPECT_EQ(run.last.value("only", ""), "rope") << run.output;
  EXPECT_EQ(run.output.find('\033'), std::string::npos) << "colours where there is no terminal";
  std::ifstream json(folder / "r.json");
  EXPECT_GT(Json::parse(json).at("outcomes").size(), 5u);
  EXPECT_GT(fs::file_size(folder / "r.html"), 3000u);
  fs::remove_all(folder);
}

/// Its verdict is its status, whoever reads.
TEST(Doctor, AClosedOutputChangesNoVerdict) {
  const auto closed = [](const std::string& arguments, const std::string& environment) {
    const int status = std::system((environment + " XDG_STATE_HOME=" + state().string() +
                                    " timeout 300 " FERRY_PROGRAM " doctor --quick --soak 0 " +
                                    arguments + " >&- 2>/dev/null")
                                       .c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  const fs::path json = fs::temp_directory_path() / "ferry_doctor_e2e_closed.json";
  EXPECT_EQ(closed("--only rope --json " + json.string(), ""), 0);
  EXPECT_TRUE(fs::exists(json));
  EXPECT_EQ(closed("--only rope", ""), 0);
  EXPECT_EQ(
      closed("--device ascend --only rms_norm", sim("FERRY_ASCEND_SIM_MUTANT=RmsNorm:scaled")), 1);
  EXPECT_EQ(closed("--only rope --json -", ""), 3) << "what was asked for could not be written";
  fs::remove(json);
  fs::remove_all(state());
}

TEST(Doctor, SaysWhatIsWrongWithTheCommand) {
  EXPECT_EQ(doctor("--device toaster").status, 2);
  EXPECT_EQ(doctor("--soak yesterday").status, 2);
  EXPECT_EQ(doctor("--only nothing").status, 2);
  EXPECT_EQ(doctor("--only ''").status, 2);
  for (const char* const short_limit : {"0s", "9s"}) {  // every chip would hang
    const Ended limited =
        doctor(std::string("--quick --soak 0 --only rope --limit ") + short_limit);
    EXPECT_EQ(limited.status, 2) << limited.output;
    EXPECT_NE(limited.output.find("at least 10s"), std::string::npos) << limited.output;
  }
  const Ended pipe =
      doctor("--for /dev/null");  // a pipe would be empty for the second who reads it
  EXPECT_EQ(pipe.status, 2) << pipe.output;
  EXPECT_NE(pipe.output.find("is not a regular file"), std::string::npos) << pipe.output;
  const Ended nowhere = doctor("--html /nonexistent/report.html");  // said before it examines
  EXPECT_EQ(nowhere.status, 2);
  EXPECT_EQ(nowhere.output,
            "ferry: /nonexistent/report.html: its folder does not exist; make it first\n");
  // Asked before it examines, which takes its time.
  const Ended unwritable = doctor("--runs /nonexistent/runs");
  EXPECT_NE(unwritable.status, 0);
  EXPECT_EQ(unwritable.output.find("checks"), std::string::npos) << unwritable.output;
  EXPECT_EQ(doctor("--runs /tmp/runs --first-level").status, 2);
  const Ended absent = doctor("--device ascend", "FERRY_ASCEND_LIBRARIES=/nonexistent");
  EXPECT_EQ(absent.status, 3) << absent.output;
  EXPECT_NE(absent.output.find("libascendcl.so"), std::string::npos) << absent.output;
}

TEST(Doctor, TriesTheSizesOfARun) {
  const fs::path file = fs::temp_directory_path() / "ferry_doctor_e2e_for.json";
  const std::string run = (fs::temp_directory_path() / "ferry_doctor_e2e_run.toml").string();
  std::stringstream tiny;
  tiny << std::ifstream(FERRY_SOURCE_DIR "/configs/tiny.toml").rdbuf();
  std::string settings = tiny.str();
  settings.insert(settings.find("sequence_length"), "dir = \"/nonexistent\"\n");  // not read
  std::ofstream(run) << settings;
  for (const auto& [subject, check] : {std::pair("rope", "rope, BF16, as in "),
                                       std::pair("copies", "copies, the run's own sizes")}) {
    const Ended ended = doctor("--quick --soak 0 --only " + std::string(subject) + " --for " + run +
                               " --json " + file.string());
    EXPECT_EQ(ended.status, 0) << ended.output;
    std::ifstream json(file);
    const Json report = Json::parse(json, nullptr, false);
    bool tried = false;
    for (const Json& o : report.at("outcomes"))
      tried |= o.at("name").get<std::string>().find(check) != std::string::npos;
    EXPECT_TRUE(tried) << subject;
    EXPECT_EQ(report.dump().find("the sizes of a run of yours"), std::string::npos);
  }
  fs::remove(file);
  fs::remove(run);
}

TEST(Program, OutputThatCannotBeWrittenIsAFailure) {
  for (const char* const command : {"ops", "--help", "ops --markdown"}) {
    const int status =
        std::system((FERRY_PROGRAM " " + std::string(command) + " >/dev/full 2>/dev/null").c_str());
    ASSERT_TRUE(WIFEXITED(status)) << command;
    EXPECT_EQ(WEXITSTATUS(status), 3) << command;
  }
}

TEST(Doctor, FindsNothingOnSoftwareAscend) {
  const Ended run = doctor("--device ascend --quick --soak 0", sim());
  EXPECT_EQ(run.status, 0) << run.output;
  EXPECT_EQ(run.last.value("description", "").rfind("software Ascend", 0), 0u) << run.output;
}

/// The notes in the state folder: verdicts by device.
std::map<std::string, std::string> notes() {
  std::map<std::string, std::string> verdicts;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(state() / "ferry/doctor", none)) {
    std::ifstream in(entry.path());
    const Json note = Json::parse(in);
    EXPECT_EQ(entry.path().extension(), ".json");
    verdicts[note.at("device")] = note.at("verdict");
  }
  return verdicts;
}

TEST(Doctor, NotesItsVerdictWhereTrainingAsks) {
  using Notes = std::map<std::string, std::string>;
  fs::remove_all(state());
  const std::string quick = "--device ascend --quick --soak 0 --only rms_norm";
  EXPECT_EQ(doctor(quick, sim()).status, 0);
  EXPECT_EQ(notes(), Notes()) << "one op alone does not make it fit";
  EXPECT_EQ(doctor(quick, sim("FERRY_ASCEND_SIM_MUTANT=RmsNorm:scaled")).status, 1);
  EXPECT_EQ(notes(), (Notes{{"ascend:0", "unfit"}}));
  // What tried less, or something else, does not answer it.
  const std::string other = "--device ascend --quick --soak 0 --only swiglu";
  const Ended less = doctor(other, sim());
  EXPECT_EQ(less.status, 0) << less.output;
  EXPECT_NE(less.output.find("that verdict stands"), std::string::npos) << less.output;
  EXPECT_EQ(notes(), (Notes{{"ascend:0", "unfit"}}));
  const auto make_whole = [] {  // a whole examination takes long; what it would note is put there
    const fs::path note = fs::directory_iterator(state() / "ferry/doctor")->path();
    std::ifstream in(note);
    Json json = Json::parse(in);
    json.at("examinations").at(0)["quick"] = false;
    std::ofstream(note) << json;
  };
  make_whole();
  EXPECT_EQ(doctor(quick, sim()).status, 0);
  EXPECT_EQ(notes(), (Notes{{"ascend:0", "unfit"}}))
      << "a quick look forgot what a whole one found";
  EXPECT_EQ(doctor(quick, sim("FERRY_ASCEND_SIM_MUTANT=RmsNorm:scaled")).status, 1);
  EXPECT_EQ(doctor(quick, sim()).status, 0);
  EXPECT_EQ(notes(), (Notes{{"ascend:0", "unfit"}})) << "by way of a quick failure";
  fs::remove_all(state());
  EXPECT_EQ(doctor(quick, sim("FERRY_ASCEND_SIM_MUTANT=RmsNorm:scaled")).status, 1);
  EXPECT_EQ(notes(), (Notes{{"ascend:0", "unfit"}}));
  const Ended alone = doctor(quick, sim());
  EXPECT_EQ(notes(), Notes()) << "the same was tried, and nothing found: " << alone.output;
  const Ended told_alone = doctor(quick, sim());
  EXPECT_NE(told_alone.output.find("only rms_norm was tried"), std::string::npos)
      << told_alone.output;
  // A state folder that cannot be written keeps nobody from the verdict.
  const Ended told =
      doctor(quick, sim("XDG_STATE_HOME=/proc/x FERRY_ASCEND_SIM_MUTANT=RmsNorm:scaled"));
  EXPECT_EQ(told.status, 1) << told.output;
  EXPECT_NE(told.output.find("ferry: note: /proc/x"), std::string::npos) << told.output;
  fs::remove_all(state());
}

/// The process that examines for this one; 0: there is none yet.
pid_t examiner(pid_t doctor) {
  const std::string at = std::to_string(doctor);
  const std::string children = ferry::program::read("/proc/" + at + "/task/" + at + "/children");
  return children.empty() ? 0 : std::stoi(children);
}

/// Seconds of processor time that a process has used.
double used_s(pid_t process) {
  std::istringstream stat(ferry::program::read("/proc/" + std::to_string(process) + "/stat"));
  std::string word;
  double ticks = 0;
  for (int field = 1; stat >> word; ++field)
    if (field == 14 || field == 15) ticks += std::stod(word);
  return ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

TEST(Doctor, CtrlCEndsItWithWhatItFoundAndNoVerdict) {
  const fs::path log = fs::temp_directory_path() / "ferry_doctor_e2e_stopped.txt",
                 json = fs::temp_directory_path() / "ferry_doctor_e2e_stopped.json";
  fs::remove_all(state());
  const auto start = [&] {
    return std::make_unique<ferry::program::Program>(
        log,
        ferry::program::Strings{
            "doctor", "--quick", "--only", "soak", "--soak", "1h", "--json", json.string()},
        ferry::program::Environment{{"XDG_STATE_HOME", state().string()}, {"FERRY_THREADS", "1"}});
  };
  const auto soaks = [](pid_t doctor) {
    const pid_t child = examiner(doctor);
    return child != 0 && used_s(child) > 2;
  };
  for (const int signal : {SIGINT, SIGTERM}) {
    const auto run = start();
    ASSERT_TRUE(ferry::program::wait_for([&] { return soaks(run->pid()); }));
    run->signal(signal);
    EXPECT_EQ(run->wait(), 3) << run->output();
    const std::string output = run->output();
    const size_t last = output.rfind('\n', output.size() - 2) + 1;
    const Json summary = Json::parse(output.substr(last), nullptr, false);
    const std::string name = signal == SIGINT ? "SIGINT" : "SIGTERM";
    ASSERT_TRUE(summary.is_object()) << output;
    EXPECT_EQ(summary.value("stopped", ""), name) << output;
    EXPECT_EQ(summary.value("verdict", ""), "nothing found") << output;
    EXPECT_TRUE(run->said("stopped by " + name + ": no verdict on the device")) << output;
    EXPECT_TRUE(run->said("No verdict, for it was stopped")) << output;
    // By itself: it is not ended after ten seconds by whoever waits for it.
    EXPECT_FALSE(run->said("was cut short")) << output;
    EXPECT_TRUE(run->said("soak of ")) << output;
    std::ifstream in(json);
    const Json report = Json::parse(in);
    EXPECT_EQ(report.at("stopped"), name);
    ASSERT_EQ(report.at("outcomes").size(), 1u) << output;
    EXPECT_TRUE(report.at("outcomes")[0].value("cut_short", false)) << output;
    EXPECT_FALSE(fs::exists(state() / "ferry")) << "noted as a verdict";
    fs::remove(json);
  }
  // A check that does not end is not waited for by who insists.
  const auto run = start();
  ASSERT_TRUE(ferry::program::wait_for([&] { return soaks(run->pid()); }));
  ::kill(examiner(run->pid()), SIGSTOP);
  run->signal(SIGINT);
  ASSERT_TRUE(ferry::program::wait_for([&] { return run->said("once more ends it at once"); }));
  ferry::program::sleep_ms(600);
  run->signal(SIGINT);
  EXPECT_EQ(run->wait(), 256 + SIGINT) << run->output();
  EXPECT_FALSE(fs::exists(json));
  fs::remove(log);
}

/// The culprit that is named first, of a device with this defect.
Json culprit(const std::string& planted) {
  const Ended run = doctor("--device ascend --quick --soak 0 --first-level", sim(planted));
  EXPECT_EQ(run.status, 1) << run.output;
  EXPECT_FALSE(run.last.at("culprits").empty()) << run.output;
  return run.last.at("culprits").at(0);
}

TEST(Doctor, NamesACallOfTheLibrary) {
  EXPECT_EQ(culprit("FERRY_ASCEND_SIM_DEFECT=cast_truncates").at("call"), "aclnnCast");
  EXPECT_EQ(culprit("FERRY_ASCEND_SIM_MUTANT=Mm:rows").at("call"), "aclnnMm");
}

TEST(Doctor, NamesAPartOfTheRuntime) {
  EXPECT_EQ(culprit("FERRY_ASCEND_SIM_DEFECT=h2d_copy_loses_tail").at("op"), "copies");
  EXPECT_EQ(culprit("FERRY_ASCEND_SIM_DEFECT=memset_overruns").at("op"), "fills");
}

TEST(Doctor, ADeviceFaultIsAFindingAndTheRestIsExamined) {
  const Ended run =
      doctor("--device ascend --quick --soak 0", sim("FERRY_ASCEND_SIM_FAULT=507015@3:RmsNorm"));
  EXPECT_EQ(run.status, 1) << run.output;
  EXPECT_NE(run.output.find("507015"), std::string::npos) << run.output;
  EXPECT_NE(run.last.at("culprits").at(0).dump().find("RmsNorm"), std::string::npos) << run.output;
  EXPECT_GT(run.last.at("checks").get<int>(), 100);
}

}  // namespace
