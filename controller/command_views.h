// What the shell commands print for people.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace guestagent::controller {

// A table of GET /instances.
std::string show_instances(const JsonValue& instances);
// Trees of GET /instances, with state and lag; `root` empty: all that have replicas, then the rest as a list.
// Otherwise the one that holds the instance of this id or name. Throws not_found.
std::string show_topology(const JsonValue& instances, const std::string& root);
// {"topologies": [{"members": […]}]} of the same.
std::string topologies_json(const JsonValue& instances);
std::string show_tasks(const JsonValue& tasks);
// One line a replica (and one of the snapshot) of a task.
std::vector<std::string> task_lines(const JsonValue& task);
// The end of a task in a sentence.
std::string task_end(const JsonValue& task);

// Draws lines over those that it drew before on a terminal, or only new ones elsewhere, on standard error.
class ProgressLines {
 public:
  ProgressLines();
  void show(const std::vector<std::string>& lines);

 private:
  bool terminal_;
  std::vector<std::string> last_;
};

}  // namespace guestagent::controller
