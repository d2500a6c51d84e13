// The matrix of single calls of a store: every kind of request × every fault, once and for ever. Either the call
// succeeds and what it promises is so, or it throws a StoreError that fits. Never a success that is none.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <ostream>

#include "swift_under_test.h"

namespace guestagent {

enum class RequestKind { auth, auth_v3, put_segment, put_manifest, put_slo, get, remove, head, list };
struct NamedKind {
  RequestKind kind;
  const char* name;
};
inline constexpr std::array<NamedKind, 9> kRequestKinds = {{{RequestKind::auth, "auth"},
                                                            {RequestKind::auth_v3, "auth_v3"},
                                                            {RequestKind::put_segment, "put_segment"},
                                                            {RequestKind::put_manifest, "put_manifest"},
                                                            {RequestKind::put_slo, "put_slo"},
                                                            {RequestKind::get, "get"},
                                                            {RequestKind::remove, "delete"},
                                                            {RequestKind::head, "head"},
                                                            {RequestKind::list, "list"}}};

struct FaultCount {
  unsigned cases = 0, false_successes = 0;
  void add(FaultCount more) {
    cases += more.cases;
    false_successes += more.false_successes;
  }
};
inline std::ostream& operator<<(std::ostream& out, FaultCount count) {
  return out << count.cases << " cases, " << count.false_successes << " false successes";
}

// Each case on a Swift of its own that `make` answers, with nothing in it. Failures are gtest's, too.
FaultCount run_fault_matrix(NamedKind kind, const std::function<std::unique_ptr<SwiftUnderTest>()>& make);

}  // namespace guestagent
