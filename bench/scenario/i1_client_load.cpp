// SPDX-License-Identifier: Apache-2.0
//
// The roles of I1, in a program that is linked with tendril::intercept and plain client libraries:
//
//   load-clients      one measurement: so many connections, each with a fiber or a thread of its own, that use
//                     hiredis or libpq as their manuals show it; all connect, then all ask for a while
//   compare-clients   load-clients by turns, fibers and threads; reports medians of rates and of ratios within
//                     a round. Run by server.py, which has started the servers.

#include "bench/support/memory.hpp"
#include "bench/support/process.hpp"
#include "bench/support/role.hpp"
#include "bench/support/statistics.hpp"

#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <hiredis/hiredis.h>
#include <libpq-fe.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bench {
namespace {

using steady = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error("clients: " + what); }

int port_of(const char* variable) {
  const char* const port = std::getenv(variable);
  if (port == nullptr) fail(std::string(variable) + " is not set: run this by server.py");
  return std::atoi(port);
}

// --- the clients: connected by the constructor; ask() is one command, its answer checked ---------------

class redis_client {
 public:
  explicit redis_client(int i)
      : context_(redisConnect("127.0.0.1", port_of("TENDRIL_REDIS_PORT"))),
        key_("bench:" + std::to_string(i)) {
    if (context_ == nullptr || context_->err != 0)
      fail(context_ != nullptr ? context_->errstr : "no memory");
  }
  ~redis_client() { redisFree(context_); }
  redis_client(const redis_client&) = delete;
  redis_client& operator=(const redis_client&) = delete;

  void ask() {
    if ((++asked_ & 1) != 0) {
      expect(redisCommand(context_, "SET %s %d", key_.c_str(), asked_), REDIS_REPLY_STATUS, "OK");
    } else {
      expect(redisCommand(context_, "GET %s", key_.c_str()), REDIS_REPLY_STRING,
             std::to_string(asked_ - 1));
    }
  }

 private:
  void expect(void* raw, int type, const std::string& text) {
    auto* const r = static_cast<redisReply*>(raw);
    if (r == nullptr) fail(context_->errstr);
    const bool good = r->type == type && text == r->str;
    freeReplyObject(r);
    if (!good) fail("a wrong reply of Redis");
  }
  redisContext* context_;
  std::string key_;
  int asked_ = 0;
};

class postgres_client {
 public:
  explicit postgres_client(int)
      : connection_(PQconnectdb(("host=127.0.0.1 user=tendril dbname=postgres sslmode=disable "
                                 "gssencmode=disable port=" +
                                 std::to_string(port_of("TENDRIL_POSTGRES_PORT")))
                                    .c_str())) {
    if (PQstatus(connection_) != CONNECTION_OK) fail(PQerrorMessage(connection_));
    PGresult* const r = PQprepare(connection_, "add", "select $1::int + 1", 1, nullptr);
    const bool good = PQresultStatus(r) == PGRES_COMMAND_OK;
    PQclear(r);
    if (!good) fail(PQerrorMessage(connection_));
  }
  ~postgres_client() { PQfinish(connection_); }
  postgres_client(const postgres_client&) = delete;
  postgres_client& operator=(const postgres_client&) = delete;

  void ask() {
    const std::string n = std::to_string(++asked_);
    const char* const parameter = n.c_str();
    PGresult* const r = PQexecPrepared(connection_, "add", 1, &parameter, nullptr, nullptr, 0);
    const bool good =
        PQresultStatus(r) == PGRES_TUPLES_OK && PQgetvalue(r, 0, 0) == std::to_string(asked_ + 1);
    PQclear(r);
    if (!good) fail(std::string("a wrong answer of PostgreSQL ") + PQerrorMessage(connection_));
  }

 private:
  PGconn* connection_;
  int asked_ = 0;
};

// --- the load -----------------------------------------------------------------------------------------

/// What all clients share, be they fibers or threads.
struct load {
  explicit load(int count) : connected(count) {}
  tendril::latch connected;
  tendril::latch begin{1};
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> done{0};
  std::mutex mutex;
  std::string wrong;  // guarded by mutex
};

template <class Client>
void one_client(load& l, int i) {
  std::uint64_t done = 0;
  bool connected = false;
  std::unique_ptr<Client> client;
  try {
    client = std::make_unique<Client>(i);
    client->ask();  // what is set up at first use
    connected = true;
    l.connected.count_down();
    l.begin.wait();
    while (!l.over.load(std::memory_order_relaxed)) {
      client->ask();
      ++done;
    }
  } catch (const std::exception& e) {
    {
      const std::lock_guard hold(l.mutex);
      l.wrong = e.what();
    }
    if (!connected) l.connected.count_down();
  }
  l.done += done;
}

struct outcome {
  double per_second = 0;
  double resident_bytes = 0;
  double each_bytes =
      0;  // resident, of a client: what came between the first one's start and the load
  double all_bytes = 0;  // with page tables, and the kernel's stacks of the threads
};

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

/// From a thread that is no client's: lets all connect, has them ask for so long; `join` waits for their ends.
/// `before`: the process' memory without clients.
outcome drive(load& l, int count, const memory_use& before, std::chrono::milliseconds length,
              const std::function<void()>& join) {
  l.connected.wait();
  const auto begin = steady::now();
  l.begin.count_down();
  std::this_thread::sleep_for(length);
  const memory_use use = read_memory_use();
  const double threads = threads_of_this_process();
  l.over = true;
  const double seconds = std::chrono::duration<double>(steady::now() - begin).count();
  join();
  if (!l.wrong.empty()) fail(l.wrong);
  const auto resident = static_cast<double>(use.resident_bytes);
  return {static_cast<double>(l.done) / seconds, resident,
          (resident - static_cast<double>(before.resident_bytes)) / count,
          resident + static_cast<double>(use.page_table_bytes) + threads * kernel_stack_bytes};
}

template <class Client>
outcome with_threads(int count, std::chrono::milliseconds length) {
  load l(count);
  const memory_use before = read_memory_use();
  std::vector<std::thread> clients;
  for (int i = 0; i != count; ++i) clients.emplace_back([&l, i] { one_client<Client>(l, i); });
  return drive(l, count, before, length, [&] {
    for (std::thread& t : clients) t.join();
  });
}

template <class Client>
outcome with_fibers(int count, std::chrono::milliseconds length) {
  load l(count);
  // What libpq's and hiredis' manuals ask of a thread's stack is not much; formatting and the resolver are.
  tendril::runtime rt(
      {.workers = 1, .stack = {tendril::stack_kind::reserved, std::size_t{256} << 10}});
  const memory_use before = read_memory_use();
  for (int i = 0; i != count; ++i) rt.spawn([&l, i] { one_client<Client>(l, i); });
  return drive(l, count, before, length, [&] { rt.drain(); });
}

int load_clients(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const std::string library = args.text("library");
  const auto count = static_cast<int>(args.number("clients"));
  const std::chrono::milliseconds length(args.number("ms"));
  if (impl != "thread" && impl != "fiber")
    throw std::invalid_argument("--impl " + impl + ": known are thread and fiber");
  if (library != "hiredis" && library != "libpq")
    throw std::invalid_argument("--library " + library + ": known are hiredis and libpq");
  const bool fibers = impl == "fiber";
  const outcome o = library == "hiredis" ? fibers ? with_fibers<redis_client>(count, length)
                                                  : with_threads<redis_client>(count, length)
                    : fibers ? with_fibers<postgres_client>(count, length)
                                         : with_threads<postgres_client>(count, length);
  out.send("per_second", o.per_second);
  out.send("resident_bytes", o.resident_bytes);
  out.send("each_bytes", o.each_bytes);
  out.send("all_bytes", o.all_bytes);
  return 0;
}
const role_registration load_role("load-clients", load_clients);

// --- the comparison -----------------------------------------------------------------------------------

struct side {
  std::vector<double> rates;
  std::vector<double> bytes;
  std::vector<double> each_bytes;
  std::vector<double> all_bytes;

  void measure(const arguments& args) {
    const auto figures = run_role("load-clients", args);
    rates.push_back(figures.at("per_second"));
    bytes.push_back(figures.at("resident_bytes"));
    each_bytes.push_back(figures.at("each_bytes"));
    all_bytes.push_back(figures.at("all_bytes"));
  }
};

int compare_clients(const arguments& args, role_output& out) {
  const long rounds = args.number("rounds");
  arguments one{{"library", args.text("library")},
                {"clients", args.text("clients")},
                {"ms", args.text("ms")}};
  side fibers;
  side threads;
  std::vector<double> rate_ratios;
  std::vector<double> byte_ratios;
  std::vector<double> each_byte_ratios;
  std::vector<double> all_byte_ratios;
  for (long r = 0; r != rounds; ++r) {
    // Who is first alternates: the server's state is part of both.
    for (const bool fiber : {r % 2 == 0, r % 2 != 0}) {
      one.set("impl", fiber ? "fiber" : "thread");
      (fiber ? fibers : threads).measure(one);
    }
    rate_ratios.push_back(fibers.rates.back() / threads.rates.back());
    byte_ratios.push_back(fibers.bytes.back() / threads.bytes.back());
    each_byte_ratios.push_back(fibers.each_bytes.back() / threads.each_bytes.back());
    all_byte_ratios.push_back(fibers.all_bytes.back() / threads.all_bytes.back());
  }
  out.send("fiber_per_second", median(fibers.rates));
  out.send("thread_per_second", median(threads.rates));
  out.send("fiber_bytes", median(fibers.bytes));
  out.send("thread_bytes", median(threads.bytes));
  out.send("fiber_each_bytes", median(fibers.each_bytes));
  out.send("thread_each_bytes", median(threads.each_bytes));
  out.send("rate_ratio", median(rate_ratios));
  out.send("rss_ratio", median(byte_ratios));
  out.send("each_ratio", median(each_byte_ratios));
  out.send("memory_ratio", median(all_byte_ratios));
  return 0;
}
const role_registration compare_role("compare-clients", compare_clients);

}  // namespace
}  // namespace bench
