#include "controller/command_views.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>

#include "config/datastore_names.h"
#include "controller/model.h"

namespace guestagent::controller {
namespace {

struct Node {
  std::string id, name, state, verdict, source, outside, lag, reasons, address, flavor, zone, volume;
  bool read_only = false;
};

std::string fixed(double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, value < 10 ? "%.1f %s" : "%.0f %s", value, unit);
  return text;
}

std::string bytes(double n) {
  if (n < 1024) return fixed(n, "B");
  for (const char* unit : {"KiB", "MiB", "GiB"}) {
    n /= 1024;
    if (n < 1024) return fixed(n, unit);
  }
  return fixed(n / 1024, "TiB");
}

Node read_node(const JsonValue& value) {
  const JsonReader in(value, "instance", Code::internal);
  Node out;
  out.id = in.string("id");
  out.name = in.string("name");
  out.state = in.string("state");
  out.address = in.opt_string("address").value_or("");
  out.flavor = in.opt_string("flavorRef").value_or("");
  out.zone = in.opt_string("availability_zone").value_or("");
  if (const auto volume = in.opt_object("volume")) out.volume = std::to_string(volume->uint("size")) + " GiB";
  if (const auto status = in.opt_object("status")) {
    out.verdict = status->opt_string("verdict").value_or("");
    if (const auto lag = status->opt_number("lag_seconds")) out.lag = fixed(*lag, "s");
    for (const std::string& reason : status->strings("reasons"))
      out.reasons += (out.reasons.empty() ? "" : "; ") + reason;
  }
  if (const auto follows = in.opt_object("follows")) out.outside = follows->string("name");
  if (const auto replication = in.opt_object(kDefaultDatastore)) {
    const JsonValue* sources = replication->array("slave_of");
    if (sources != nullptr && !sources->Empty()) out.source = JsonReader((*sources)[0], "slave_of").string("id");
    out.read_only = replication->opt_boolean("read_only").value_or(false);
  }
  return out;
}

std::vector<Node> read_nodes(const JsonValue& instances) {
  std::vector<Node> out;
  for (auto item = instances.Begin(); item != instances.End(); ++item) out.push_back(read_node(*item));
  return out;
}

// The word for people: what the host is, unless it serves, then how it is.
std::string word(const Node& node) {
  if (node.state == to_text(InstanceState::spare) && node.verdict == to_text(Verdict::unreachable))
    return "spare, unreachable";
  return node.state == to_text(InstanceState::active) ? node.verdict : node.state;
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> width;
  for (const auto& row : rows) {
    width.resize(std::max(width.size(), row.size()));
    for (std::size_t n = 0; n < row.size(); ++n) width[n] = std::max(width[n], row[n].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t n = 0; n < row.size(); ++n) {
      line += row[n];
      if (n + 1 < row.size()) line += std::string(width[n] - row[n].size() + 2, ' ');
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

using Children = std::map<std::string, std::vector<const Node*>>;

void draw(const Node& node, const Children& children, const std::string& first, const std::string& rest,
          std::string& out) {
  out += first + node.name + "  " + word(node);
  if (!node.source.empty()) {
    if (!node.lag.empty()) out += "  lag " + node.lag;
    if (!node.read_only) out += "  writable";
  }
  if (!node.outside.empty()) out += "  (follows " + node.outside + ", not by this controller)";
  if (!node.reasons.empty() && node.verdict != to_text(Verdict::healthy) && node.verdict != to_text(Verdict::source))
    out += "  (" + node.reasons + ")";
  out += "\n";
  const auto below = children.find(node.id);
  if (below == children.end()) return;
  for (std::size_t n = 0; n < below->second.size(); ++n) {
    const bool last = n + 1 == below->second.size();
    draw(*below->second[n], children, rest + (last ? "└─ " : "├─ "), rest + (last ? "   " : "│  "), out);
  }
}

Children children_of(const std::vector<Node>& nodes) {
  Children out;
  for (const Node& node : nodes) {
    if (!node.source.empty()) out[node.source].push_back(&node);
  }
  return out;
}

std::string job_words(const JsonReader& job) {
  std::string out = job.opt_string("phase").value_or("");
  if (const auto progress = job.opt_object("progress")) {
    const auto done = progress->opt_uint("done_bytes").value_or(0);
    const auto total = progress->opt_uint("total_bytes").value_or(0);
    if (done != 0)
      out += "  " + bytes(static_cast<double>(done)) + (total != 0 ? " of " + bytes(static_cast<double>(total)) : "");
    const double rate = progress->opt_number("rate").value_or(0);
    if (rate >= 1) out += "  " + bytes(rate) + "/s";
    if (const auto eta = progress->opt_uint("eta_s")) out += "  " + std::to_string(*eta) + " s left";
  }
  if (const auto note = job.opt_string("note")) out += "  (" + *note + ")";
  return out;
}

}  // namespace

std::string show_instances(const JsonValue& instances) {
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATE", "LAG", "FLAVOR", "ZONE", "VOLUME", "ID", "AGENT"}};
  for (const Node& node : read_nodes(instances)) {
    rows.push_back({node.name, word(node), node.lag, node.flavor, node.zone, node.volume, node.id, node.address});
  }
  return rows.size() == 1 ? "no instances; register a host with: guestagent register ADDRESS\n" : table(rows);
}

std::string show_topology(const JsonValue& instances, const std::string& root) {
  const std::vector<Node> nodes = read_nodes(instances);
  const Children children = children_of(nodes);
  std::string out;
  if (!root.empty()) {
    auto top = std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) { return n.id == root; });
    if (top == nodes.end()) {
      const auto named = [&](const Node& n) { return n.name == root; };
      if (std::count_if(nodes.begin(), nodes.end(), named) > 1) {
        throw Error(Code::failed_precondition, "looking for instance " + root + ": several have this name",
                    "say which by its id; guestagent instances lists them");
      }
      top = std::find_if(nodes.begin(), nodes.end(), named);
    }
    if (top == nodes.end()) throw Error(Code::not_found, "looking for instance " + root + ": there is none");
    while (!top->source.empty()) {
      const std::string above = top->source;
      top = std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) { return n.id == above; });
      if (top == nodes.end()) throw Error(Code::internal, "the answer has a replica without its source");
    }
    draw(*top, children, "", "", out);
    return out;
  }
  for (const Node& node : nodes) {
    if (node.source.empty() && children.count(node.id) != 0) draw(node, children, "", "", out);
  }
  for (const Node& node : nodes) {
    if (node.source.empty() && children.count(node.id) == 0) draw(node, children, "", "", out);
  }
  return out;
}

std::string topologies_json(const JsonValue& instances) {
  const std::vector<Node> nodes = read_nodes(instances);
  const Children children = children_of(nodes);
  JsonWriter out;
  const std::function<void(const Node&)> write = [&](const Node& node) {
    out.begin_object().member("id", node.id).member("name", node.name);
    if (!node.source.empty()) {
      out.key(kDefaultDatastore)
          .begin_object()
          .key("slave_of")
          .begin_array()
          .begin_object()
          .member("id", node.source)
          .end_object()
          .end_array();
      out.member("read_only", node.read_only).end_object();
    }
    out.end_object();
    const auto below = children.find(node.id);
    if (below == children.end()) return;
    for (const Node* child : below->second) write(*child);
  };
  out.begin_object().key("topologies").begin_array();
  for (const Node& node : nodes) {
    if (!node.source.empty()) continue;
    out.begin_object().key("members").begin_array();
    write(node);
    out.end_array().end_object();
  }
  return out.end_array().end_object().text();
}

std::string show_tasks(const JsonValue& tasks) {
  std::vector<std::vector<std::string>> rows = {{"TASK", "KIND", "STATE", "STEP", "PROGRESS", "SINCE", "ERROR"}};
  for (auto item = tasks.Begin(); item != tasks.End(); ++item) {
    const JsonReader in(*item, "task", Code::internal);
    const auto error = in.opt_object("error");
    rows.push_back({in.string("id"), in.string("kind"), in.string("state"), in.string("step"),
                    std::to_string(in.object("progress").uint("percent")) + " %", in.string("created_at"),
                    error ? error->string("message") : ""});
  }
  return rows.size() == 1 ? "no tasks\n" : table(rows);
}

std::vector<std::string> task_lines(const JsonValue& task) {
  const JsonReader in(task, "task", Code::internal);
  std::vector<std::string> out;
  if (in.string("kind") == "replicate") {
    std::string line = "snapshot: ";
    const auto job = in.opt_object("snapshot_job");
    line += in.string("step") != "snapshot" ? "done" : job ? job_words(*job) : "starting";
    const auto error = in.opt_object("error");
    if (in.string("step") != "snapshot" && error && error->string("message").starts_with("no snapshot"))
      line = "snapshot: failed";
    out.push_back(line);
  }
  const JsonValue* replicas = in.array("replicas");
  for (auto item = replicas->Begin(); item != replicas->End(); ++item) {
    const JsonReader replica(*item, "replica", Code::internal);
    std::string line = replica.string("name") + ": " + replica.string("state");
    if (const auto job = replica.opt_object("job")) line += "  " + job_words(*job);
    if (const auto error = replica.opt_object("error")) line += ": " + error->string("message");
    out.push_back(line);
  }
  return out;
}

std::string task_end(const JsonValue& task) {
  const JsonReader in(task, "task", Code::internal);
  std::string out = in.string("kind") + " " + in.string("state");
  if (const auto error = in.opt_object("error")) out += ": " + error->string("message");
  if (const auto warning = in.opt_string("warning")) out += "\nwarning: " + *warning;
  if (const auto error = in.opt_object("error"); error && error->has("hint")) out += "\nhint: " + error->string("hint");
  if (in.string("state") != to_text(RunState::succeeded))
    out += "\nwhat did not succeed is tried again with: guestagent retry " + in.string("id");
  return out + "\n";
}

ProgressLines::ProgressLines() : terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLines::show(const std::vector<std::string>& lines) {
  std::string text;
  if (terminal_) {
    if (!last_.empty()) text += "\033[" + std::to_string(last_.size()) + "A";
    for (const std::string& line : lines) text += "\r\033[K" + line + "\n";
  } else {
    // What moves within a phase would only fill a log.
    const auto head = [](const std::string& line) { return line.substr(0, line.find("  ", line.find("  ") + 2)); };
    for (std::size_t n = 0; n < lines.size(); ++n) {
      if (n >= last_.size() || head(last_[n]) != head(lines[n])) text += lines[n] + "\n";
    }
  }
  last_ = lines;
  std::fputs(text.c_str(), stderr);
}

}  // namespace guestagent::controller
