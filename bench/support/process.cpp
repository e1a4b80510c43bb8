// SPDX-License-Identifier: Apache-2.0
#include "bench/support/process.hpp"

#include "bench/support/statistics.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace bench {
namespace {

[[noreturn]] void throw_errno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

cpu_set_t set_of(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int c : cores) CPU_SET(static_cast<std::size_t>(c), &set);
  return set;
}

/// The cores a child may use; computed before fork, because between fork and exec only
/// async-signal-safe calls are allowed.
cpu_set_t mask_for(int core) { return core == any_core ? set_of(usable_cores()) : set_of({core}); }

/// This program, or the one beside it that "program" names.
std::string program_for(const arguments& args) {
  const std::string name = args.text("program", "");
  if (name.empty()) return "/proc/self/exe";
  const std::filesystem::path path =
      std::filesystem::read_symlink("/proc/self/exe").replace_filename(name);
  if (::access(path.c_str(), X_OK) != 0)
    throw std::system_error(errno, std::generic_category(), "cannot run " + path.string());
  return path.string();
}

void make_pipe(unique_fd& reader, unique_fd& writer) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe2");
  reader.reset(ends[0]);
  writer.reset(ends[1]);
}

/// This process' environment, with `library` before all others that are preloaded; as it is, if that is empty.
std::vector<std::string> environment_with(const std::string& library) {
  constexpr std::string_view preload = "LD_PRELOAD=";
  std::vector<std::string> all;
  std::string others;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string_view variable(*e);
    if (!library.empty() && variable.substr(0, preload.size()) == preload)
      others = variable.substr(preload.size());
    else all.emplace_back(variable);
  }
  if (!library.empty())
    all.push_back(std::string(preload) + library + (others.empty() ? "" : ":" + others));
  return all;
}

std::vector<char*> c_strings(std::vector<std::string>& words) {
  std::vector<char*> list;
  list.reserve(words.size() + 1);
  for (std::string& w : words) list.push_back(w.data());
  list.push_back(nullptr);
  return list;
}

/// The second field of a schedstat file.
std::chrono::nanoseconds wait_in(const std::filesystem::path& schedstat) {
  std::ifstream in(schedstat);
  std::int64_t running = 0;
  std::int64_t waiting = 0;
  return in >> running >> waiting ? std::chrono::nanoseconds(waiting) : std::chrono::nanoseconds(0);
}

}  // namespace

const std::vector<int>& usable_cores() {
  static const std::vector<int> cores = [] {
    std::vector<int> list;
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) != 0) throw_errno("sched_getaffinity");
    for (int c = 0; c < CPU_SETSIZE; ++c)
      if (CPU_ISSET(static_cast<std::size_t>(c), &set)) list.push_back(c);
    return list;
  }();
  return cores;
}

void pin_to_core(int core) {
  const cpu_set_t set = mask_for(core);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) throw_errno("sched_setaffinity");
}

child_process child_process::start(const std::string& role_name, const arguments& args, int core) {
  child_process child;
  child.name_ = role_name;
  unique_fd writer;
  make_pipe(child.reports_, writer);

  const std::string program = program_for(args);
  std::vector<std::string> words{program, role_name};
  for (std::string& w : args.words()) words.push_back(std::move(w));
  words.insert(words.end(), {"--report-fd", std::to_string(writer.get())});
  const std::vector<char*> argv = c_strings(words);
  std::vector<std::string> variables = environment_with(args.text("preload", ""));
  const std::vector<char*> envp = c_strings(variables);
  const cpu_set_t mask = mask_for(core);
  const pid_t parent = ::getpid();

  child.pid_ = ::fork();
  if (child.pid_ < 0) throw_errno("fork");
  if (child.pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(126);  // the parent died before prctl took effect
    ::sched_setaffinity(0, sizeof mask, &mask);
    ::fcntl(writer.get(), F_SETFD, 0);
    ::execve(program.c_str(), argv.data(), envp.data());
    ::_exit(127);
  }
  if (const int error = ::clock_getcpuclockid(child.pid_, &child.cpu_clock_); error != 0)
    throw std::system_error(error, std::generic_category(), "clock_getcpuclockid");
  return child;
}

child_process::child_process(child_process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      name_(std::move(other.name_)),
      reports_(std::move(other.reports_)),
      unread_(std::move(other.unread_)),
      cpu_clock_(other.cpu_clock_) {}

child_process& child_process::operator=(child_process&& other) noexcept {
  if (this != &other) {
    stop();
    pid_ = std::exchange(other.pid_, -1);
    name_ = std::move(other.name_);
    reports_ = std::move(other.reports_);
    unread_ = std::move(other.unread_);
    cpu_clock_ = other.cpu_clock_;
  }
  return *this;
}

/// False: the child has closed its pipe.
bool child_process::read_line(std::string& line, std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    if (const auto end = unread_.find('\n'); end != std::string::npos) {
      line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      return true;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      stop();
      throw std::runtime_error("role " + name_ + " did not report in time");
    }
    pollfd waiting{reports_.get(), POLLIN, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno != EINTR) throw_errno("poll");
    if (ready <= 0) continue;
    char chunk[4096];
    const ssize_t n = ::read(reports_.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno("read from the report pipe");
    if (n == 0) return false;
    unread_.append(chunk, static_cast<std::size_t>(n));
  }
}

std::string child_process::expect(const std::string& key, std::chrono::seconds timeout) {
  std::string line;
  if (!read_line(line, std::chrono::steady_clock::now() + timeout)) {
    const std::string how = ending();
    throw std::runtime_error(how.empty() ? "role " + name_ + " ended without reporting " + key
                                         : how);
  }
  if (line.compare(0, key.size() + 1, key + ' ') != 0)
    throw std::runtime_error("role " + name_ + " reported '" + line + "' where " + key +
                             " was expected");
  return line.substr(key.size() + 1);
}

std::map<std::string, double> child_process::collect(std::chrono::seconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::map<std::string, double> values;
  for (std::string line; read_line(line, deadline);) {
    const auto space = line.find(' ');
    if (space == std::string::npos)
      throw std::runtime_error("role " + name_ + " reported '" + line + "'");
    values[line.substr(0, space)] = std::strtod(line.c_str() + space + 1, nullptr);
  }
  if (const std::string how = ending(); !how.empty()) throw std::runtime_error(how);
  return values;
}

/// Reaps a child that has closed its pipe; empty when it ended with status 0.
std::string child_process::ending() {
  int status = 0;
  const pid_t pid = std::exchange(pid_, -1);
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return "role " + name_ + " is gone";
  if (WIFSIGNALED(status))
    return "role " + name_ + " was killed by signal " + std::to_string(WTERMSIG(status));
  if (WEXITSTATUS(status) != 0)
    return "role " + name_ + " ended with status " + std::to_string(WEXITSTATUS(status));
  return {};
}

std::chrono::nanoseconds child_process::cpu_time() const {
  timespec t{};
  if (::clock_gettime(cpu_clock_, &t) != 0) throw_errno("clock_gettime of a child");
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

std::chrono::nanoseconds own_run_queue_wait() { return wait_in("/proc/thread-self/schedstat"); }

std::chrono::nanoseconds child_process::run_queue_wait() const {
  std::chrono::nanoseconds sum{0};
  std::error_code ec;
  const std::filesystem::directory_iterator threads("/proc/" + std::to_string(pid_) + "/task", ec);
  for (const auto& thread : threads) sum += wait_in(thread.path() / "schedstat");
  return sum;
}

std::uint64_t child_process::resident_bytes() const {
  std::ifstream statm("/proc/" + std::to_string(pid_) + "/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  if (!(statm >> total >> resident))
    throw std::runtime_error("cannot read the memory use of " + name_ + ": has it ended?");
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

void child_process::stop() noexcept {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

std::map<std::string, double> run_role(const std::string& role_name, const arguments& args,
                                       int core, std::chrono::seconds timeout) {
  return child_process::start(role_name, args, core).collect(timeout);
}

std::map<std::string, double> run_role_in_processes(const std::string& role_name, arguments args,
                                                    unsigned processes, int core,
                                                    std::chrono::seconds timeout) {
  const auto seed = static_cast<std::uint64_t>(args.number("seed"));
  std::map<std::string, std::vector<double>> samples;
  for (unsigned i = 0; i != processes; ++i) {
    args.set("seed", std::to_string(seed + i));
    for (const auto& [name, value] : run_role(role_name, args, core, timeout))
      samples[name].push_back(value);
  }
  std::map<std::string, double> result;
  for (const auto& [name, values] : samples) {
    const std::size_t colon = std::min(name.find(':'), name.size());
    if (name.compare(colon < 3 ? 0 : colon - 3, 2, "_q") == 0) continue;  // a process's own
    result.emplace(name, median(values));
    const quartiles over = quartiles_of(values);
    result.insert_or_assign(name.substr(0, colon) + "_q1" + name.substr(colon), over.q1);
    result.insert_or_assign(name.substr(0, colon) + "_q3" + name.substr(colon), over.q3);
  }
  return result;
}

std::string output_of(const std::vector<std::string>& command, int core) {
  std::vector<std::string> words = command;
  const std::vector<char*> argv = c_strings(words);
  const cpu_set_t mask = mask_for(core);
  unique_fd reader;
  unique_fd writer;
  make_pipe(reader, writer);
  const unique_fd nowhere(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const pid_t pid = ::fork();
  if (pid < 0) throw_errno("fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::sched_setaffinity(0, sizeof mask, &mask);
    ::dup2(writer.get(), 1);
    ::dup2(nowhere.get(), 2);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  writer.reset();
  std::string text;
  char chunk[4096];
  for (;;) {
    const ssize_t n = ::read(reader.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(chunk, static_cast<std::size_t>(n));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? text : std::string();
}

}  // namespace bench
