#include "controller/commands.h"

#include <boost/program_options.hpp>

#include <cstdio>
#include <sstream>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "config/controller_settings.h"
#include "controller/command_client.h"
#include "controller/command_views.h"
#include "controller/controller.h"
#include "controller/model.h"

namespace guestagent::controller {
namespace {

namespace po = boost::program_options;

constexpr Millis kTaskPoll{300};
constexpr int kMostSilentPolls = 200;  // a controller that is being restarted

struct CommandRow {
  const char* name;
  const char* form;  // its own arguments
  std::size_t least, most;
  const char* help;
};

constexpr CommandRow kCommands[] = {
    {"controller", "", 0, 0,
     "Serves the controller's API in the foreground, until SIGTERM: at a Unix socket for root and its own user "
     "(/run/guestagent-controller/controller.sock),\n"
     "and with the page by TCP where the configuration has listen and token_file. --config names the configuration\n"
     "(/etc/guestagent/controller.yaml; without it the defaults hold). SIGHUP reads the TLS files again. Unfinished "
     "tasks "
     "go on where they were.\n"},
    {"replicate", "SOURCE COUNT", 2, 2,
     "Makes COUNT read replicas of SOURCE (an id or a name) from one snapshot, and waits with a line for "
     "each.\n"
     "The hosts come from the pool of registered ones, or from the provisioner's command. Hosts of the pool that do "
     "not answer, or "
     "have data\n"
     "of their own, are not taken; --overwrite takes those with data too, and replaces their data.\n"},
    {"detach-replication", "REPLICA", 1, 1,
     "Makes a replica a site of its own, after everything that it has received is applied.\n"},
    {"promote-to-replica-source", "REPLICA", 1, 1,
     "Makes a replica the source of its set, without a copy; the old source and all others follow it. Nothing that was "
     "acknowledged\n"
     "is lost. --force ends the transactions that still write after 10 s.\n"},
    {"eject-replica-source", "SOURCE", 1, 1,
     "Gives up a source that is gone: the replica that has received the most takes over. Refused while the source "
     "answers, or a replica\n"
     "does not; --force goes on all the same. When the old source comes back it is made to refuse writes.\n"},
    {"rebuild", "REPLICA", 1, 1,
     "Makes a broken or diverged replica anew from a snapshot of its source: the same host in the same place. What it "
     "has "
     "is kept until\n"
     "the new data serves.\n"},
    {"topology", "[ID]", 0, 1, "Shows who follows whom, with state and lag; with ID only that instance's topology.\n"},
    {"instances", "", 0, 0, "Lists the hosts that the controller knows.\n"},
    {"register", "ADDRESS", 1, 1,
     "Makes a host known by its agent's address: unix:/run/guestagent/agent.sock or https://host:port. One "
     "without user data is\n"
     "free for new replicas.\n"},
    {"forget", "ID", 1, 1,
     "Forgets a host; nothing on it is touched. --force also forgets a replica: it goes on following, and its "
     "replication "
     "account\n"
     "stays on its source for good.\n"},
    {"tasks", "[TASK]", 0, 1, "Lists tasks, the newest first, or follows one to its end.\n"},
    {"retry", "TASK", 1, 1,
     "Tries again what failed of a task; --replace takes other hosts for it, --overwrite also hosts with data.\n"},
    {"cancel", "TASK", 1, 1, "Stops a task: replicas that serve stay, the other hosts are put back.\n"},
};

const CommandRow* find_row(const std::string& name) {
  const std::string wanted = name == "detach_replication" ? "detach-replication" : name;
  for (const CommandRow& row : kCommands) {
    if (row.name == wanted) return &row;
  }
  return nullptr;
}

po::options_description options_of(const std::string& command) {
  po::options_description out("options");
  auto add = out.add_options();
  add("help,h", "this text");
  add("config", po::value<std::string>(), "the controller's configuration");
  if (command == "controller") return out;
  add("controller", po::value<std::string>(),
      "where the controller is: unix:/PATH, https://HOST:PORT or http://127.0.0.1:PORT (GUESTAGENT_CONTROLLER; else "
      "the socket in "
      "the configuration)");
  add("token-file", po::value<std::string>(), "a file with the bearer token");
  add("ca-file", po::value<std::string>(), "the CA of the controller's certificate");
  add("certificate", po::value<std::string>(), "a client certificate, instead of a token");
  add("key", po::value<std::string>(), "its key");
  add("json", "print JSON");
  const bool changes_source = command == "promote-to-replica-source" || command == "eject-replica-source";
  const bool makes_task = changes_source || command == "rebuild" || command == "replicate" ||
                          command == "detach-replication" || command == "retry" || command == "cancel";
  if (changes_source) add("force", "see above");
  if (makes_task) add("no-wait", "do not wait for the end of the task");
  if (command == "replicate") {
    add("read-only", po::value<std::string>()->default_value("true")->implicit_value("true"), "true or false");
    add("flavor", po::value<std::string>(), "of the new hosts");
    add("availability-zone", po::value<std::string>(), "of the new hosts");
    add("volume-size", po::value<std::uint64_t>(), "of the new hosts, in GiB");
    add("nics", po::value<std::string>(), "of the new hosts, a JSON array");
    add("name", po::value<std::string>(), "of hosts that are made for it; a number follows");
  }
  if (command == "detach-replication") {
    add("force", "also when what was received cannot be applied whole: transactions are lost then");
    add("drain-timeout", po::value<std::uint64_t>(), "seconds that applying may take");
  }
  if (command == "register") {
    add("id", po::value<std::string>(), "else one is made");
    add("name", po::value<std::string>(), "for people");
    add("flavor", po::value<std::string>(), "what the host is");
    add("availability-zone", po::value<std::string>(), "where the host is");
    add("volume-size", po::value<std::uint64_t>(), "GiB");
    add("pool", po::value<std::string>()->implicit_value("true"), "true or false: may it be taken for a replica");
  }
  if (command == "forget") add("force", "also a replica, or where something is still to be removed");
  if (command == "retry") add("replace", "take other hosts for what failed");
  if (command == "retry" || command == "replicate")
    add("overwrite", "hosts that have data of their own may be taken: their data is replaced");
  return out;
}

bool truth(const std::string& option, const std::string& word) {
  if (word == "true" || word == "yes" || word == "1") return true;
  if (word == "false" || word == "no" || word == "0") return false;
  throw Error(Code::invalid_argument, "--" + option + ": " + printable(word) + ": must be true or false");
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw system_error("writing to standard output", errno);
  }
}

// One command line, understood.
class Invocation {
 public:
  Invocation(const CommandRow& row, const std::vector<std::string>& arguments)
      : row_(row), options_(options_of(row.name)) {
    po::options_description all;
    all.add(options_).add_options()("words", po::value<std::vector<std::string>>(&words_));
    po::positional_options_description positional;
    positional.add("words", -1);
    try {
      po::store(po::command_line_parser(arguments).options(all).positional(positional).run(), values_);
      po::notify(values_);
    } catch (const po::error& e) {
      throw Error(Code::invalid_argument, e.what(), usage());
    }
    if (has("help")) return;
    if (words_.size() < row.least || words_.size() > row.most) {
      throw Error(Code::invalid_argument, words_.size() < row.least ? "something is missing" : "too many arguments",
                  usage());
    }
  }

  std::string usage() const { return std::string("it is typed: guestagent ") + row_.name + " " + row_.form; }
  std::string help() const {
    std::string text = "guestagent " + std::string(row_.name) + " " + row_.form + " [options]\n\n" + row_.help + "\n";
    std::ostringstream list;
    list << options_;
    return text + list.str();
  }

  bool has(const char* option) const { return values_.count(option) != 0; }
  std::string text(const char* option) const { return has(option) ? values_[option].as<std::string>() : std::string(); }
  std::uint64_t number(const char* option) const { return values_[option].as<std::uint64_t>(); }
  const std::string& word(std::size_t n) const { return words_[n]; }
  std::size_t words() const { return words_.size(); }
  bool json() const { return has("json"); }

  CommandClient client() const {
    return CommandClient(
        {text("controller"), text("config"), text("token-file"), text("ca-file"), text("certificate"), text("key")});
  }

 private:
  const CommandRow& row_;
  po::options_description options_;
  po::variables_map values_;
  std::vector<std::string> words_;
};

// Follows a task to its end with progress on standard error. The exit status is that of its error's code.
int follow(const Invocation& in, CommandClient& client, const std::string& task_id) {
  ProgressLines progress;
  for (int silent = 0;;) {
    std::string text;
    try {
      text = client.get("/tasks/" + path_segment(task_id));
      silent = 0;
    } catch (const Error& e) {
      if (e.code() != Code::unavailable || ++silent > kMostSilentPolls) throw;
      system_clock().sleep(kTaskPoll, {});
      continue;
    }
    const JsonDocument document = parse_json(text, "the task");
    const JsonValue& task = document["task"];
    progress.show(task_lines(task));
    const JsonReader reader(task, "task", Code::internal);
    const std::string state = reader.string("state");
    if (state != to_text(RunState::running)) {
      if (in.json()) {
        print(text);
      } else {
        std::fputs(task_end(task).c_str(), stderr);
      }
      if (state == to_text(RunState::succeeded)) return 0;
      const auto error = reader.opt_object("error");
      return code_row(error ? code_from_wire(error->string("code")) : Code::internal).exit_status;
    }
    system_clock().sleep(kTaskPoll, {});
  }
}

int begun(const Invocation& in, CommandClient& client, const std::string& answer) {
  const JsonDocument document = parse_json(answer, "the answer");
  const std::string id = JsonReader(document, "answer", Code::internal).object("task").string("id");
  if (!in.has("no-wait")) return follow(in, client, id);
  print(in.json() ? answer : "task " + id + " goes on; guestagent tasks " + id + " follows it\n");
  return 0;
}

void write_host(JsonWriter& out, const Invocation& in) {
  if (in.has("availability-zone")) out.member("availability_zone", in.text("availability-zone"));
  if (in.has("flavor")) out.member("flavorRef", in.text("flavor"));
  if (in.has("volume-size")) out.key("volume").begin_object().member("size", in.number("volume-size")).end_object();
}

int replicate(const Invocation& in) {
  const std::string& count = in.word(1);
  if (count.empty() || count.size() > 4 || count.find_first_not_of("0123456789") != std::string::npos) {
    throw Error(Code::invalid_argument, "COUNT: " + printable(count) + ": must be a whole number from 1", in.usage());
  }
  JsonWriter out;
  out.begin_object().key("replicate").begin_object().member("count", std::stoi(count));
  if (in.has("overwrite")) out.member("overwrite", true);
  out.key("instance").begin_object();
  write_host(out, in);
  if (in.has("nics")) out.key("nics").raw(to_json(parse_json(in.text("nics"), "--nics")));
  if (in.has("name")) out.member("name", in.text("name"));
  out.end_object().key("topology").begin_object().key("slave_of").begin_array().begin_object().member("id", in.word(0));
  out.end_object()
      .end_array()
      .member("read_only", truth("read-only", in.text("read-only")))
      .end_object()
      .end_object()
      .end_object();
  CommandClient client = in.client();
  return begun(in, client, client.post("/instances/" + path_segment(in.word(0)) + "/action", out.text()));
}

int detach(const Invocation& in) {
  JsonWriter out;
  out.begin_object().key("detach").begin_object();
  if (in.has("force")) out.member("force", true);
  if (in.has("drain-timeout")) out.member("drain_timeout_s", in.number("drain-timeout"));
  CommandClient client = in.client();
  return begun(
      in, client,
      client.post("/instances/" + path_segment(in.word(0)) + "/topology/action", out.end_object().end_object().text()));
}

int change_set(const Invocation& in, const char* action) {
  JsonWriter out;
  out.begin_object().key(action).begin_object();
  if (in.has("force")) out.member("force", true);
  CommandClient client = in.client();
  return begun(in, client,
               client.post("/instances/" + path_segment(in.word(0)) + "/action", out.end_object().end_object().text()));
}

int topology(const Invocation& in) {
  CommandClient client = in.client();
  if (in.json() && in.words() == 1) {
    print(client.get("/instances/" + path_segment(in.word(0)) + "/topology"));
    return 0;
  }
  const JsonDocument document = parse_json(client.get("/instances"), "the answer");
  print(in.json() ? topologies_json(document["instances"]) + "\n"
                  : show_topology(document["instances"], in.words() == 1 ? in.word(0) : ""));
  return 0;
}

int list(const Invocation& in, const char* target, const char* key, std::string (*show)(const JsonValue&)) {
  CommandClient client = in.client();
  const std::string text = client.get(target);
  if (in.json()) {
    print(text);
  } else {
    const JsonDocument document = parse_json(text, "the answer");
    print(show(document[key]));
  }
  return 0;
}

int register_host(const Invocation& in) {
  JsonWriter out;
  out.begin_object().key("instance").begin_object().member("address", in.word(0));
  for (const char* key : {"id", "name"}) {
    if (in.has(key)) out.member(key, in.text(key));
  }
  write_host(out, in);
  if (in.has("pool")) out.member("pool", truth("pool", in.text("pool")));
  CommandClient client = in.client();
  const std::string answer = client.post("/instances", out.end_object().end_object().text());
  if (in.json()) {
    print(answer);
    return 0;
  }
  const JsonDocument document = parse_json(answer, "the answer");
  const JsonReader instance = JsonReader(document, "answer", Code::internal).object("instance");
  print(instance.string("name") + " is registered as " + instance.string("id") + ", " +
        (instance.string("state") != "spare" ? "with data of its own"
         : instance.opt_boolean("has_user_data").value_or(false)
             ? "free for a replica, but it has data: only --overwrite takes it"
             : "free for a replica") +
        "\n");
  return 0;
}

int forget(const Invocation& in) {
  CommandClient client = in.client();
  client.remove("/instances/" + path_segment(in.word(0)) + (in.has("force") ? "?force=true" : ""));
  print(in.json() ? "{}\n"
                  : in.word(0) +
                        (in.has("force")
                             ? " is forgotten; if it was a replica it goes on following, by an account that stays on "
                               "its source\n"
                             : " is forgotten\n"));
  return 0;
}

int task_action(const Invocation& in, const std::string& body) {
  CommandClient client = in.client();
  return begun(in, client, client.post("/tasks/" + path_segment(in.word(0)) + "/action", body));
}

int run(const Invocation& in, const std::string& name) {
  if (name == "controller") {
    std::error_code ignored;
    const fs::path config = in.has("config") ? fs::path(in.text("config")) : fs::path(kControllerConfig);
    const bool there = in.has("config") || fs::exists(config, ignored);
    return run_controller(there ? load_controller_settings(config) : ControllerSettings{});
  }
  if (name == "replicate") return replicate(in);
  if (name == "detach-replication") return detach(in);
  if (name == "promote-to-replica-source") return change_set(in, "promote_to_replica_source");
  if (name == "eject-replica-source") return change_set(in, "eject_replica_source");
  if (name == "rebuild") return change_set(in, "rebuild");
  if (name == "topology") return topology(in);
  if (name == "instances") return list(in, "/instances", "instances", show_instances);
  if (name == "register") return register_host(in);
  if (name == "forget") return forget(in);
  if (name == "retry") {
    JsonWriter out;
    out.begin_object().key("retry").begin_object();
    for (const char* option : {"replace", "overwrite"}) {
      if (in.has(option)) out.member(option, true);
    }
    return task_action(in, out.end_object().end_object().text());
  }
  if (name == "cancel") return task_action(in, R"({"cancel": {}})");
  if (in.words() == 0) return list(in, "/tasks", "tasks", show_tasks);
  CommandClient client = in.client();
  return follow(in, client, in.word(0));
}

}  // namespace

std::optional<int> command(const std::vector<std::string>& arguments) {
  const CommandRow* row = arguments.empty() ? nullptr : find_row(arguments[0]);
  if (row == nullptr) return std::nullopt;
  const Invocation in(*row, {arguments.begin() + 1, arguments.end()});
  if (in.has("help")) {
    print(in.help());
    return 0;
  }
  return run(in, row->name);
}

std::string commands_help() {
  std::string out;
  for (const CommandRow& row : kCommands) {
    std::string line = std::string("  guestagent ") + row.name + " " + row.form;
    line.resize(std::max<std::size_t>(line.size() + 1, 45), ' ');
    const std::string help = row.help;
    out += line + help.substr(0, help.find_first_of(".;,:\n")) + "\n";
  }
  return out;
}

}  // namespace guestagent::controller
