// SPDX-License-Identifier: Apache-2.0
//
// The parts of I1's clients that know nothing of the library: the load from outside, and the comparison.
#include "bench/scenario/i1_client_load.hpp"

#include "bench/support/process.hpp"
#include "bench/support/statistics.hpp"
#include "bench/support/unique_fd.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace bench {

using steady = std::chrono::steady_clock;

void client_failed(const std::string& what) { throw std::runtime_error("clients: " + what); }

int port_of(const char* variable) {
  const char* const port = std::getenv(variable);
  if (port == nullptr) client_failed(std::string(variable) + " is not set: run this by server.py");
  return std::atoi(port);
}

client_load::client_load(int count, int window_count) : connected(count) {
  for (int w = 0; w != window_count; ++w) windows.push_back(std::make_unique<client_window>(count));
}

void client_load::failed(const std::exception& e) {
  const std::lock_guard hold(mutex);
  wrong = e.what();
}

bool client_load::good() {
  const std::lock_guard hold(mutex);
  return wrong.empty();
}

void client_load::require_good() {
  const std::lock_guard hold(mutex);
  if (!wrong.empty()) client_failed(wrong);
}

void client_load::left(bool was_connected, std::size_t window) {
  if (!was_connected) connected.count_down();
  for (; window != windows.size(); ++window) windows[window]->finished.count_down();
}

// --- the load -----------------------------------------------------------------------------------------

namespace {

/// Of each thread, on this architecture.
constexpr double kernel_stack_bytes = 16384;

double threads_of_this_process() {
  double count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    static_cast<void>(entry);
    ++count;
  }
  return count;
}

void await_turn(int turns) {
  std::uint64_t one;
  if (turns >= 0 && read(turns, &one, sizeof one) != sizeof one)
    throw std::system_error(errno, std::system_category(), "clients: waiting for the turn");
}

}  // namespace

void drive(client_load& l, const client_order& order, const memory_use& before, role_output& out) {
  l.connected.wait();
  out.send("connected", order.clients);
  for (const auto& window : l.windows) {
    if (l.good()) await_turn(order.turns);
    const auto begin = steady::now();
    window->begin.count_down();
    if (l.good()) std::this_thread::sleep_for(order.length);
    const memory_use use = read_memory_use();
    const double threads = threads_of_this_process();
    window->over = true;
    const double seconds = std::chrono::duration<double>(steady::now() - begin).count();
    window->finished.wait();
    if (!l.good()) continue;  // the others are to end
    const auto resident = static_cast<double>(use.resident_bytes);
    // each_bytes: resident, of a client: what came between the first one's start and the load.
    // all_bytes: with page tables, and the kernel's stacks of the threads.
    out.send("per_second", static_cast<double>(window->done) / seconds);
    out.send("resident_bytes", resident);
    out.send("each_bytes", (resident - static_cast<double>(before.resident_bytes)) / order.clients);
    out.send("all_bytes",
             resident + static_cast<double>(use.page_table_bytes) + threads * kernel_stack_bytes);
  }
}

// --- the comparison -----------------------------------------------------------------------------------

namespace {

/// The clients of one variant, in a process of their own.
class side {
 public:
  side(const char* impl, arguments args) : turns_(eventfd(0, EFD_SEMAPHORE)) {
    if (turns_.get() < 0) throw std::system_error(errno, std::system_category(), "eventfd");
    args.set("impl", impl);
    args.set("turns", std::to_string(turns_.get()));
    process_ = child_process::start("load-clients", args, any_core);
    process_->expect("connected", std::chrono::seconds(120));
  }

  void take_turn() {
    const std::uint64_t one = 1;
    if (write(turns_.get(), &one, sizeof one) != sizeof one)
      throw std::system_error(errno, std::system_category(), "eventfd");
    const auto next = [&](const char* key) { return std::stod(process_->expect(key)); };
    rates.push_back(next("per_second"));
    bytes.push_back(next("resident_bytes"));
    each_bytes.push_back(next("each_bytes"));
    all_bytes.push_back(next("all_bytes"));
  }

  /// Throws unless all was well to the end.
  void finish() { process_->collect(std::chrono::seconds(120)); }

  std::vector<double> rates;
  std::vector<double> bytes;
  std::vector<double> each_bytes;
  std::vector<double> all_bytes;

 private:
  unique_fd turns_;
  std::optional<child_process> process_;
};

double median_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i != a.size(); ++i) ratios.push_back(a[i] / b[i]);
  return median(ratios);
}

int compare_clients(const arguments& args, role_output& out) {
  const long rounds = args.number("rounds");
  const arguments one{
      {"clients", args.text("clients")}, {"ms", args.text("ms")}, {"rounds", args.text("rounds")}};
  side fibers("fiber", one);
  side threads("thread", one);
  for (long r = 0; r != rounds; ++r) {
    // Who is first alternates: the server's state is part of both.
    for (const bool fiber : {r % 2 == 0, r % 2 != 0}) (fiber ? fibers : threads).take_turn();
  }
  fibers.finish();
  threads.finish();
  out.send("fiber_per_second", median(fibers.rates));
  out.send("thread_per_second", median(threads.rates));
  out.send("fiber_bytes", median(fibers.bytes));
  out.send("thread_bytes", median(threads.bytes));
  out.send("fiber_each_bytes", median(fibers.each_bytes));
  out.send("thread_each_bytes", median(threads.each_bytes));
  out.send("rate_ratio", median_ratio(fibers.rates, threads.rates));
  out.send("rss_ratio", median_ratio(fibers.bytes, threads.bytes));
  out.send("each_ratio", median_ratio(fibers.each_bytes, threads.each_bytes));
  out.send("memory_ratio", median_ratio(fibers.all_bytes, threads.all_bytes));
  return 0;
}
const role_registration compare_role("compare-clients", compare_clients);

}  // namespace
}  // namespace bench
