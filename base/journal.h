// The durable record of what a job has done so far, from which a restarted agent finishes or undoes it.
//
// A file of one JSON object a line: {"step": NAME, "data": {…}}. A step is recorded *before* the deed where undoing it
// twice is harmless ("about to"), and the deed is then idempotent. A torn last line (a crash while writing) is ignored.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"

namespace guestagent {

class Journal {
 public:
  struct Step {
    std::string name;
    std::string data;  // a JSON object, as text
  };

  // Creates the file (mode 0600), or reads what an earlier run left in it. Throws Error(data_loss) for a file that is
  // no journal.
  explicit Journal(fs::path path);

  // Appends a step; it is on the disk (fsync) when this returns. `data` is a JSON object and may hold no secret that is
  // not needed for the undo.
  void record(std::string_view step, std::string_view data = "{}");

  const std::vector<Step>& steps() const { return steps_; }
  // The data of the last step of that name, or nullptr.
  const Step* find(std::string_view step) const;

  // Removes the file: nothing is left to finish or undo.
  void close();

 private:
  fs::path path_;
  UniqueFd fd_;
  std::vector<Step> steps_;
};

// In test builds (GUESTAGENT_FAILPOINTS) the environment variable GUESTAGENT_FAILPOINT="NAME[@N][=kill|error|sleep:MS]"
// makes the agent kill itself, fail or wait at the place of that name (the N-th time that it comes there); in a release
// build this is nothing. Journal::record calls failpoint("journal:STEP") after each step.
#ifdef GUESTAGENT_FAILPOINTS
void failpoint(std::string_view name);
#else
inline void failpoint(std::string_view) {}
#endif

}  // namespace guestagent
