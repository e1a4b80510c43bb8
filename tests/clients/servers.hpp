// SPDX-License-Identifier: Apache-2.0
//
// The servers that server.py started for this program: where they are, and how to have them stopped and
// started in the middle of a test.
#pragma once

#include <string>
#include <string_view>

namespace tendril::test {

/// TENDRIL_<name> of the environment. \throws std::runtime_error: the program was not started by server.py
std::string server_setting(std::string_view name);
/// TENDRIL_<kind>_PORT.
int server_port(std::string_view kind);

/// Returns when it is done. On fibers and threads, one at a time; \throws std::runtime_error what server.py said
void stop_server(std::string_view kind);   ///< as an administrator does
void kill_server(std::string_view kind);   ///< SIGKILL
void start_server(std::string_view kind);  ///< on the same port, with its data

}  // namespace tendril::test
