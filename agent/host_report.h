// What `guestagent doctor` found out about this host, and what of it is to be put right.
#pragma once

#include <string>
#include <vector>

#include "strategies/datastore.h"

namespace guestagent {

class HostReport {
 public:
  // In the order in which things are to be put right: what comes first is what the rest needs.
  void add(Check check);
  void add(std::vector<Check> checks);
  // As add, for what only matters once it is wanted: a failure is a warning.
  void add_mild(std::vector<Check> checks);

  bool ok() const;          // nothing failed
  int exit_status() const;  // of the first failure's code; 0 when nothing failed
  // For people: a line for each check, with what to do, then what to fix, numbered, failures before warnings.
  std::string text() const;
  // `{"ok": …, "checks": [{name, result, message, hint?, code?}], "fix": [{name, result, message, hint?}]}`, "fix" in
  // the same order as in text().
  std::string json() const;

 private:
  std::vector<const Check*> to_fix() const;
  std::vector<Check> checks_;
};

// One line for a check ("ok", "warn", "FAIL", "skip"), and one for what to do where there is something.
std::string check_lines(const Check& check);

}  // namespace guestagent
