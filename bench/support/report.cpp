// SPDX-License-Identifier: Apache-2.0
#include "bench/support/report.hpp"

#include "bench/support/process.hpp"
#include "bench_commit.hpp"  // generated: TENDRIL_BENCH_COMMIT

#include <sys/utsname.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>

namespace bench {
namespace {

using nlohmann::ordered_json;

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(": ");
    if (colon != std::string::npos &&
        (line.rfind("model name", 0) == 0 || line.rfind("CPU part", 0) == 0))
      return line.substr(colon + 2);
  }
  return "unknown";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

ordered_json json_of(const parameters& list) {
  ordered_json object = ordered_json::object();
  for (const parameter& p : list) std::visit([&](const auto& v) { object[p.name] = v; }, p.value);
  return object;
}

ordered_json json_of(const machine& m) {
  ordered_json object = {{"cpu", m.cpu},       {"cores", m.cores},
                         {"kernel", m.kernel}, {"compiler", m.compiler},
                         {"build", m.build},   {"commit", m.commit},
                         {"date", m.date},     {"load_average", m.load_average}};
  object["governor"] = m.governor.empty() ? ordered_json(nullptr) : ordered_json(m.governor);
  return object;
}

}  // namespace

std::string to_text(const parameters& list) {
  std::ostringstream out;
  out << std::boolalpha;
  const char* gap = "";
  for (const parameter& p : list) {
    out << gap << p.name << '=';
    std::visit([&](const auto& v) { out << v; }, p.value);
    gap = " ";
  }
  return out.str();
}

machine describe_machine() {
  machine m;
  m.cpu = cpu_model();
  m.cores = static_cast<unsigned>(usable_cores().size());
  utsname name{};
  ::uname(&name);
  m.kernel = std::string(name.sysname) + ' ' + name.release + ' ' + name.machine;
#ifdef __clang__
  m.compiler = std::string("clang ") + __clang_version__;
#else
  m.compiler = std::string("gcc ") + __VERSION__;
#endif
#ifdef NDEBUG
  m.build = "release";
#else
  m.build = "debug";
#endif
  m.commit = TENDRIL_BENCH_COMMIT;
  m.date = utc_now();
  m.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  m.load_average = std::strtod(first_line("/proc/loadavg").c_str(), nullptr);
  return m;
}

void write_json(const report& all, const std::string& path) {
  ordered_json results = ordered_json::array();
  for (const result& r : all.results)
    results.push_back(
        {{"experiment", r.experiment},
         {"variant", r.variant},
         {"metric", r.metric},
         {"value", std::isfinite(r.value) ? ordered_json(r.value) : ordered_json(nullptr)},
         {"unit", r.unit},
         {"params", json_of(r.params)}});
  ordered_json failures = ordered_json::array();
  for (const failure& f : all.failures)
    failures.push_back(
        {{"experiment", f.experiment}, {"variant", f.variant}, {"reason", f.reason}});
  ordered_json absent = ordered_json::array();
  for (const absence& a : all.absent)
    absent.push_back({{"variant", a.variant}, {"reason", a.reason}});
  const ordered_json document = {{"schema", 1},
                                 {"machine", json_of(all.where)},
                                 {"results", results},
                                 {"failures", failures},
                                 {"absent", absent}};

  const std::string partial = path + ".partial";
  errno = 0;
  std::ofstream out(partial, std::ios::trunc);
  out << document.dump(1) << '\n';
  out.close();
  if (!out || std::rename(partial.c_str(), path.c_str()) != 0)
    throw std::system_error(errno, std::generic_category(), "cannot write " + path);
}

}  // namespace bench
