// SPDX-License-Identifier: Apache-2.0
//
// An embedded Python whose own sockets wait. One interpreter, so one fiber at a time runs its code: the others
// wait for its lock, which is a condition variable of the library's, while theirs waits for a socket.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string>

#include "clients/crowd.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

const char* const definitions = R"(
import socket

def fetch(port, path):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path).encode())
        parts = []
        while True:
            part = s.recv(65536)
            if not part:
                break
            parts.append(part)
    head, body = b"".join(parts).split(b"\r\n\r\n", 1)
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError(head.decode())
    return len(body)
)";

class interpreter {
 public:
  interpreter() {
    Py_InitializeEx(0);
    require(PyRun_SimpleString(definitions) == 0, "the definitions");
    fetch_ = PyObject_GetAttrString(PyImport_AddModule("__main__"), "fetch");
    saved_ = PyEval_SaveThread();
  }
  ~interpreter() {
    PyEval_RestoreThread(saved_);
    Py_XDECREF(fetch_);
    Py_FinalizeEx();
  }
  interpreter(const interpreter&) = delete;
  interpreter& operator=(const interpreter&) = delete;

  /// A state of its own for each fiber: PyGILState keys its states by the thread, of which fibers share one.
  long fetch(int port, const char* path) {
    PyThreadState* const mine = PyThreadState_New(PyInterpreterState_Main());
    PyEval_RestoreThread(mine);
    PyObject* const r = PyObject_CallFunction(fetch_, "is", port, path);
    long length = -1;
    if (r != nullptr) {
      length = PyLong_AsLong(r);
      Py_DECREF(r);
    } else {
      PyErr_Print();
    }
    PyThreadState_Clear(mine);
    PyThreadState_DeleteCurrent();
    return length;
  }

 private:
  PyObject* fetch_ = nullptr;
  PyThreadState* saved_ = nullptr;
};

}  // namespace

TEST_SUITE_BEGIN("python");

TEST_CASE("its sockets wait side by side") {
  interpreter python;
  each_crowd([&](crowd& c) {
    meeting waiting;
    c.run(50, [&](int) {
      const int port = server_port("NGINX");
      require(python.fetch(port, "/small") == 16, "/small");
      require(python.fetch(port, "/large") == 1 << 20, "/large");
      const meeting::visit here(waiting);
      require(python.fetch(port, "/slow") == 2000, "/slow");
    });
    CHECK(waiting.most() > 25);
  });
}

TEST_SUITE_END();
