#include "base/child.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/file.h"

namespace guestagent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Millis kLong(60000);

ChildSpec shell(const std::string& script) {
  return {.argv = {"sh", "-c", script}};
}

std::string read_all(int fd) {
  std::string out;
  char buffer[65536];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<std::size_t>(n));
  return out;
}

template <typename F>
Error error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(Code::internal, "");
}

// True once the process is gone; zombies that somebody else has to reap count as gone.
bool gone(pid_t pid) {
  for (int i = 0; i < 3000; ++i) {
    if (::kill(pid, 0) != 0) return true;
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    std::getline(stat, line);
    const std::size_t end = line.rfind(')');
    if (end == std::string::npos || line.substr(end + 2, 1) == "Z") return true;
    std::this_thread::sleep_for(Millis(10));
  }
  return false;
}

TEST(Child, ItsOutputAndStatusAreKnown) {
  Child child({.argv = {"sh", "-c", "cat; echo done >&2; exit 3"}, .pipe_stdin = true, .pipe_stdout = true});
  EXPECT_EQ(::write(child.stdin_fd(), "hello", 5), 5);
  EXPECT_FALSE(child.try_wait());
  child.close_stdin();
  EXPECT_EQ(child.stdin_fd(), -1);
  EXPECT_EQ(read_all(child.stdout_fd()), "hello");
  const Child::Exit exit = child.wait();
  EXPECT_EQ(exit.status, 3);
  EXPECT_FALSE(exit.ok());
  EXPECT_EQ(exit.describe(), "exit status 3");
  EXPECT_THAT(child.last_lines(), ElementsAre("done"));
  EXPECT_EQ(child.wait().status, 3) << "asked again";
  EXPECT_EQ(child.try_wait()->status, 3);
}

TEST(Child, ASignalIsTold) {
  Child child(shell("kill -9 $$"));
  const Child::Exit exit = child.wait();
  EXPECT_EQ(exit.status, -1);
  EXPECT_EQ(exit.signal, 9);
  EXPECT_FALSE(exit.ok());
  EXPECT_EQ(exit.describe(), "killed by signal 9 (Killed)");
}

TEST(Child, LinesComeFromBothOutputsUnlessPiped) {
  std::vector<std::string> lines;
  ChildSpec spec = shell("echo out; echo err >&2; printf 'cr\\r\\n'; printf last");
  spec.on_line = [&](std::string_view line) { lines.emplace_back(line); };
  Child child(std::move(spec));
  EXPECT_EQ(child.stdout_fd(), -1);
  EXPECT_TRUE(child.wait().ok());
  EXPECT_THAT(lines, ElementsAre("out", "err", "cr", "last"));
}

TEST(Child, KeepsTheLastLinesOnly) {
  Child child(
      shell("for i in $(seq 1 50); do echo line $i; done; head -c 100000 /dev/zero | tr '\\0' x; echo; "
            "printf '\\033[1mbold'"));
  child.wait();
  const auto lines = child.last_lines();
  ASSERT_EQ(lines.size(), 20u);
  EXPECT_EQ(lines.front(), "line 33");
  EXPECT_EQ(lines[17], "line 50");
  EXPECT_LE(lines[18].size(), 500u);
  EXPECT_EQ(lines[19], "?[1mbold");
}

TEST(Child, AFloodOfStandardErrorDoesNotStopTheData) {
  std::uint64_t seen = 0;
  ChildSpec spec =
      shell("head -c 10000000 /dev/zero | tr '\\0' 'e' | fold -w 99 >&2 & head -c 50000000 /dev/zero; wait");
  spec.pipe_stdout = true;
  spec.on_line = [&](std::string_view line) { seen += line.size(); };
  Child child(std::move(spec));
  EXPECT_EQ(read_all(child.stdout_fd()).size(), 50000000u);
  EXPECT_TRUE(child.wait().ok());
  EXPECT_EQ(seen, 10000000u);
}

TEST(Child, ALineWithoutEndIsBounded) {
  std::size_t longest = 0, lines = 0;
  ChildSpec spec = shell("head -c 30000000 /dev/zero | tr '\\0' x; echo; echo next");
  spec.on_line = [&](std::string_view line) {
    longest = std::max(longest, line.size());
    ++lines;
  };
  Child child(std::move(spec));
  child.wait();
  EXPECT_EQ(longest, 65536u);
  EXPECT_EQ(lines, 2u);
}

TEST(Child, AnErrorOfTheListenerIsThrownByWait) {
  ChildSpec spec = shell("echo a; echo b; echo c");
  int calls = 0;
  spec.on_line = [&](std::string_view) {
    ++calls;
    throw Error(Code::data_loss, "bad line");
  };
  Child child(std::move(spec));
  EXPECT_EQ(error_of([&] { child.wait(); }).code(), Code::data_loss);
  EXPECT_EQ(calls, 1);
}

TEST(Child, AMissingProgramIsNamedWithThePath) {
  const Error error = error_of([] { Child child({.argv = {"no-such-tool-at-all", "x"}}); });
  EXPECT_EQ(error.code(), Code::not_found);
  EXPECT_STREQ(error.what(), "starting no-such-tool-at-all: no such program");
  EXPECT_THAT(error.hint(), HasSubstr("no-such-tool-at-all"));
  EXPECT_THAT(error.hint(), HasSubstr(std::getenv("PATH")));
  EXPECT_EQ(error_of([] { Child child({.argv = {"/no/such/tool"}}); }).code(), Code::not_found);
  EXPECT_EQ(error_of([] { Child child({.argv = {}}); }).code(), Code::invalid_argument);
  EXPECT_EQ(error_of([] { Child child({.argv = {""}}); }).code(), Code::invalid_argument);
}

TEST(Child, WhatCannotBeExecutedIsNotStarted) {
  const TempDir dir(fs::temp_directory_path(), "guestagent-child-");
  const std::string file = (dir.path() / "tool").string();
  std::ofstream(file) << "#!/no/such/interpreter\n";
  EXPECT_EQ(error_of([&] { Child child({.argv = {file}}); }).code(), Code::permission_denied);
  ::chmod(file.c_str(), 0755);
  const Error error = error_of([&] { Child child({.argv = {file}}); });
  EXPECT_EQ(error.code(), Code::not_found);
  EXPECT_THAT(error.what(), HasSubstr("interpreter"));
  std::ofstream(file) << "";
  error_of([&] { Child child({.argv = {file}}); });
  const Error directory = error_of([&] {
    ChildSpec spec = shell("true");
    spec.working_dir = (dir.path() / "none").string();
    Child child(std::move(spec));
  });
  EXPECT_EQ(directory.code(), Code::not_found);
  EXPECT_THAT(directory.what(), HasSubstr("/none"));
}

TEST(Child, HasExactlyTheEnvironmentItWasGiven) {
  ::setenv("GUESTAGENT_TEST_SECRET", "hunter2", 1);
  EXPECT_EQ(run_and_read({.argv = {"env"}}, kLong), "PATH=" + std::string(std::getenv("PATH")) + "\nLC_ALL=C\n");
  EXPECT_EQ(run_and_read({.argv = {"env"}, .env = {"A=1", "B=2"}}, kLong), "A=1\nB=2\n");
  ::unsetenv("GUESTAGENT_TEST_SECRET");
}

TEST(Child, RunsInItsDirectory) {
  EXPECT_EQ(run_and_read({.argv = {"pwd"}, .working_dir = "/usr/bin"}, kLong), "/usr/bin\n");
}

TEST(Child, InheritsNoDescriptorAndNoSignalState) {
  const int leaked = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  ASSERT_GE(leaked, 0);
  const auto previous = std::signal(SIGPIPE, SIG_IGN);
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  // The listing itself has one open, for the directory.
  const std::string fds = run_and_read({.argv = {"ls", "/proc/self/fd"}}, kLong);
  const std::string status = run_and_read({.argv = {"cat", "/proc/self/status"}}, kLong);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  std::signal(SIGPIPE, previous);
  ::close(leaked);
  EXPECT_EQ(fds, "0\n1\n2\n3\n");
  EXPECT_THAT(status, HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(status, HasSubstr("SigIgn:\t0000000000000000"));
}

TEST(Child, StandardInputIsEmptyUnlessPiped) {
  EXPECT_EQ(run_and_read({.argv = {"cat"}}, kLong), "");
}

TEST(Child, LeadsAGroupOfItsOwn) {
  Child child({.argv = {"sleep", "1000"}});
  EXPECT_EQ(::getpgid(child.pid()), child.pid());
  EXPECT_NE(::getpgid(0), child.pid());
}

TEST(Child, TheDestructorKillsWhatIgnoresSigterm) {
  pid_t pid = 0;
  {
    ChildSpec spec = shell("trap '' TERM INT HUP; echo ready; while :; do sleep 1; done");
    spec.pipe_stdout = true;
    Child child(std::move(spec));
    pid = child.pid();
    char byte = 0;
    ASSERT_EQ(::read(child.stdout_fd(), &byte, 1), 1);
    child.kill_group(SIGTERM);
    EXPECT_FALSE(child.try_wait());
  }
  EXPECT_TRUE(gone(pid));
  EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), -1) << "it was not reaped";
}

pid_t grandchild_of(Child& child) {
  char text[32] = {};
  const ssize_t n = ::read(child.stdout_fd(), text, sizeof text - 1);
  return n > 0 ? std::atoi(text) : 0;
}

TEST(Child, TheWholeGroupDiesWithTheObject) {
  pid_t grandchild = 0;
  {
    ChildSpec spec = shell("sleep 1000 & echo $!; wait");
    spec.pipe_stdout = true;
    Child child(std::move(spec));
    grandchild = grandchild_of(child);
    ASSERT_GT(grandchild, 1);
    ASSERT_EQ(::kill(grandchild, 0), 0);
  }
  EXPECT_TRUE(gone(grandchild));
}

TEST(Child, TheWholeGroupDiesOnStop) {
  ChildSpec spec = shell("sleep 1000 & echo $!; wait");
  spec.pipe_stdout = true;
  Child child(std::move(spec));
  const pid_t grandchild = grandchild_of(child);
  ASSERT_GT(grandchild, 1);
  std::stop_source source;
  std::jthread stopper([&] { source.request_stop(); });
  EXPECT_EQ(error_of([&] { child.wait(source.get_token()); }).code(), Code::cancelled);
  EXPECT_TRUE(gone(grandchild));
  EXPECT_EQ(child.wait().signal, SIGKILL) << "asked again";
}

TEST(Child, AGrandchildThatHoldsStandardErrorDoesNotHangWait) {
  ChildSpec spec = shell("sleep 1000 >/dev/null & echo $!; exit 4");
  spec.pipe_stdout = true;
  Child child(std::move(spec));
  const pid_t grandchild = grandchild_of(child);
  ASSERT_GT(grandchild, 1);
  EXPECT_EQ(child.wait().status, 4);
  EXPECT_TRUE(gone(grandchild));
}

TEST(Child, ADaemonThatLeftTheGroupDoesNotHangWaitAndLives) {
  ChildSpec spec = shell("setsid sh -c 'echo $$; exec sleep 1000 >/dev/null' & exit 5");
  spec.pipe_stdout = true;
  pid_t daemon = 0;
  {
    Child child(std::move(spec));
    daemon = grandchild_of(child);
    ASSERT_GT(daemon, 1);
    EXPECT_EQ(child.wait().status, 5);
  }
  EXPECT_EQ(::kill(daemon, 0), 0);
  ::kill(daemon, SIGKILL);
}

TEST(Child, OutlivesTheThreadThatStartedIt) {
  std::unique_ptr<Child> child;
  std::thread([&] {
    child = std::make_unique<Child>(ChildSpec{.argv = {"cat"}, .pipe_stdin = true, .pipe_stdout = true});
  }).join();
  ASSERT_EQ(::write(child->stdin_fd(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(child->stdout_fd(), &byte, 1), 1);
  child->close_stdin();
  EXPECT_TRUE(child->wait().ok());
}

TEST(Child, DiesWhenTheAgentIsKilled) {
  if (std::getenv("GUESTAGENT_TEST_DIES") != nullptr) {
    // The agent of this test: another run of it, which dies without a destructor.
    Child child({.argv = {"sleep", "1000"}});
    std::printf("pid %d\n", child.pid());
    std::fflush(stdout);
    ::kill(::getpid(), SIGKILL);
  }
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  Child agent({.argv = {self, "--gtest_filter=Child.DiesWhenTheAgentIsKilled"},
               .env = {"GUESTAGENT_TEST_DIES=1", "PATH=" + std::string(std::getenv("PATH"))},
               .pipe_stdout = true});
  const std::string out = read_all(agent.stdout_fd());
  EXPECT_EQ(agent.wait().signal, SIGKILL);
  const std::size_t at = out.find("pid ");
  ASSERT_NE(at, std::string::npos) << out;
  EXPECT_TRUE(gone(std::atoi(out.c_str() + at + 4)));
}

TEST(Child, RunsAsAnotherUserOrSaysWhyNot) {
  ChildSpec spec = shell("id -u; id -g; id -G");
  spec.run_as = {65534, 65534};
  if (::geteuid() == 0) {
    EXPECT_EQ(run_and_read(std::move(spec), kLong), "65534\n65534\n65534\n");
  } else {
    EXPECT_EQ(error_of([&] { run_and_read(std::move(spec), kLong); }).code(), Code::permission_denied);
  }
}

TEST(Child, KillGroupAfterTheEndHarmsNobody) {
  Child child(shell("true"));
  child.wait();
  child.kill_group(SIGKILL);
  Child other({.argv = {"cat"}, .pipe_stdin = true});
  child.kill_group(SIGKILL);
  other.close_stdin();
  EXPECT_TRUE(other.wait().ok());
}

TEST(Child, ManyAtOnceFromManyThreads) {
  std::vector<std::jthread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const std::string word = std::to_string(t) + "-" + std::to_string(i);
        if (run_and_read({.argv = {"echo", word}}, kLong) == word + "\n") ++good;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(good, 160);
}

TEST(RunAndRead, AnswersStandardOutput) {
  EXPECT_EQ(run_and_read(shell("echo hello; echo noise >&2"), kLong), "hello\n");
}

TEST(RunAndRead, AFailureCarriesTheLastLines) {
  const Error error = error_of([] { run_and_read(shell("echo out; echo the reason >&2; exit 7"), kLong); });
  EXPECT_EQ(error.code(), Code::internal);
  EXPECT_THAT(error.what(), HasSubstr("running sh: exit status 7"));
  EXPECT_THAT(error.what(), HasSubstr("the reason"));
}

TEST(RunAndRead, OutlivingTheTimeIsAnErrorAndKills) {
  const TempDir dir(fs::temp_directory_path(), "guestagent-child-");
  const std::string file = (dir.path() / "pid").string();
  const Error error =
      error_of([&] { run_and_read(shell("echo $$ > " + file + "; echo waiting >&2; sleep 1000"), Millis(4000)); });
  EXPECT_EQ(error.code(), Code::deadline_exceeded);
  EXPECT_THAT(error.what(), HasSubstr("waiting"));
  EXPECT_TRUE(gone(std::stoi(read_file(file))));
  // Also when it has closed its output.
  EXPECT_EQ(error_of([&] { run_and_read(shell("exec >&-; sleep 1000"), Millis(200)); }).code(),
            Code::deadline_exceeded);
}

TEST(RunAndRead, TooMuchOutputIsAnError) {
  EXPECT_EQ(error_of([] { run_and_read(shell("yes"), kLong, 1000); }).code(), Code::resource_exhausted);
  EXPECT_EQ(run_and_read(shell("printf 12345"), kLong, 5), "12345");
}

TEST(RunAndRead, StopIsCancelled) {
  std::stop_source source;
  source.request_stop();
  EXPECT_EQ(error_of([&] { run_and_read(shell("sleep 1000"), kLong, 1000, source.get_token()); }).code(),
            Code::cancelled);
}

TEST(FindProgram, LooksOnPathAndInSbin) {
  EXPECT_THAT(*find_program("sh"), testing::EndsWith("/sh"));
  EXPECT_EQ(find_program("/bin/sh"), "/bin/sh");
  EXPECT_EQ(find_program("no-such-tool-at-all"), std::nullopt);
  EXPECT_EQ(find_program("/bin"), std::nullopt) << "a directory";
  EXPECT_EQ(find_program(""), std::nullopt);
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", ".:bin::/nowhere", 1);
  EXPECT_EQ(find_program("sh"), std::nullopt) << "relative entries are not followed";
  EXPECT_TRUE(find_program("ldconfig")) << "sbin is always searched";
  ::setenv("PATH", path.c_str(), 1);
}

}  // namespace
}  // namespace guestagent
