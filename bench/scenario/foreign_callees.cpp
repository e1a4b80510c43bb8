// SPDX-License-Identifier: Apache-2.0
#include "bench/scenario/foreign_calls.hpp"
#include "bench/support/foreign/foreign.hpp"

#include <dlfcn.h>
#include <zlib.h>

#include <numeric>
#include <stdexcept>
#include <string>

namespace bench::foreign {

callees::callees() {
  // In the copy of the library that is loaded anyway; the loader is asked as for any plugin.
  trivial = reinterpret_cast<int (*)(int)>(::dlsym(RTLD_DEFAULT, "foreign_trivial"));
  if (trivial == nullptr || trivial(41) != 42)
    throw std::runtime_error("dlsym does not find foreign_trivial");

  argument_types[0] = &ffi_type_sint;
  if (ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 1, &ffi_type_sint, argument_types) != FFI_OK)
    throw std::runtime_error("libffi refuses int (int)");

  std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(0));
  if (::crc32(0, reinterpret_cast<const unsigned char*>("123456789"), 9) != 0xcbf43926)
    throw std::runtime_error("zlib's crc32 is wrong about its test vector");

  // One thread uses the statement at a time, and none while another does.
  if (sqlite3_open_v2(":memory:", &database,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                      nullptr) != SQLITE_OK ||
      sqlite3_prepare_v2(database, "select ?1 + 1", -1, &statement, nullptr) != SQLITE_OK) {
    const std::string why = database != nullptr ? sqlite3_errmsg(database) : "out of memory";
    sqlite3_close(database);
    throw std::runtime_error("SQLite: " + why);
  }
}

callees::~callees() {
  sqlite3_finalize(statement);
  sqlite3_close(database);
}

}  // namespace bench::foreign
