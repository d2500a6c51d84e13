#include "agent/command_line.h"

#include <boost/program_options.hpp>

#include "agent/methods.h"
#include "base/error.h"
#include "base/text.h"

namespace guestagent {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kOverview =
    R"help(guestagent: makes a running database server the source of new replicas, and a host a replica

usage:
  guestagent daemon                          serve RPC on the agent's socket
  guestagent call METHOD [PARAMS]            ask the running daemon
  guestagent --oneshot METHOD [PARAMS]       do it in this process, without a daemon
  guestagent check-config                    say what the configuration would do, and try it
  guestagent doctor                          check this host, and say what to fix, in order
  guestagent cat HREF                        write a snapshot's verified raw stream to standard output
  guestagent restore HREF --to DIR           extract and prepare a snapshot in DIR, without replication
  guestagent COMMAND --help                  more on one command, with examples

options:
  --config FILE    the configuration (/etc/guestagent/guestagent.yaml)
  --verbose, -v    show the log, too, where standard error is a terminal
  --version        print the version
  --help, -h       this text

examples:
  guestagent check-config
  (umask 077; guestagent --oneshot get_replication_snapshot > snapshot.json)  # it holds a password
  guestagent --oneshot attach_replication_slave @attach.json
  guestagent call get_replication_status
)help";

constexpr std::string_view kParams = R"help(
PARAMS is JSON text, @FILE, or - for standard input; nothing means {}. Give params that hold a password, as a snapshot's metadata
do, by @FILE or standard input: others can see the arguments of a process.

Standard output gets the result as JSON and nothing else. Standard error gets progress (one line that updates on a terminal, lines
otherwise), the log, and errors with a hint. The exit status says which kind of error:
   0 success            2 INVALID_ARGUMENT    11 CANCELLED            14 DEADLINE_EXCEEDED   15 NOT_FOUND
  16 ALREADY_EXISTS    17 PERMISSION_DENIED   18 RESOURCE_EXHAUSTED   19 FAILED_PRECONDITION 22 UNIMPLEMENTED
  23 INTERNAL          24 UNAVAILABLE         25 DATA_LOSS            30 BUSY

methods (get_info lists them, the reference explains them):
)help";

constexpr std::string_view kEveryJob = R"help(
Changing and long methods take "dry_run": true, too: the checks and steps, and nothing is touched; and "job_id" of your choice.
)help";

struct HelpRow {
  std::string_view command, text;
};

constexpr HelpRow kHelp[] = {
    {"daemon", R"help(guestagent daemon [--config FILE]

Serves JSON-RPC 2.0 as POST /rpc on the Unix socket of agent.socket, in the foreground; beside it GET /healthz, GET /metrics and
GET /jobs/ID/events. First of all it finishes or undoes what an agent that died has left. SIGTERM stops it (a running job is
cancelled and undone), SIGHUP reloads throttles and the log's level from the configuration.

example:
  guestagent daemon &
  curl --unix-socket /run/guestagent/agent.sock -d '{"jsonrpc":"2.0","id":1,"method":"get_info"}' http://agent/rpc
)help"},
    {"call", R"help(guestagent call METHOD [PARAMS] [--config FILE]

Asks the running daemon and waits for the answer. Interrupting it (Ctrl-C) does not stop the job: cancel_job does.

examples:
  guestagent call get_info
  (umask 077; guestagent call get_replication_snapshot '{"snapshot_id": "monday"}' > snapshot.json)
  guestagent call wait_job '{"job_id": "20260131T235959Z-1f9a3c5e", "timeout_s": 60}'
  jq '{snapshot: .}' snapshot.json | guestagent call attach_replication_slave -
)help"},
    {"oneshot", R"help(guestagent --oneshot METHOD [PARAMS] [--config FILE]

Does the same as the daemon would, in this process. One changing job runs on a host at a time, whoever started it. Interrupting it
(Ctrl-C) cancels the job and undoes what it did.

examples:
  guestagent --oneshot get_replication_snapshot '{"dry_run": true}'
  (umask 077; guestagent --oneshot get_replication_snapshot > snapshot.json)  # it holds a password
  jq '{snapshot: ., slave_config: {overwrite: true}}' snapshot.json | guestagent --oneshot attach_replication_slave -
  guestagent --oneshot detach_replication_slave '{"drain_timeout_s": 600}'
)help"},
    {"check-config", R"help(guestagent check-config [--syntax-only] [--config FILE]

Reads the configuration, connects to the server and the store, looks for the tools and the server's option files, and says of each
whether it is well: "ok", "warn" or "FAIL" with what to do. Changes nothing. The exit status is 0 when nothing failed.
With --syntax-only it only reads the file, and connects to nothing.

example:
  guestagent --config ./guestagent.yaml check-config
)help"},
    {"doctor", R"help(guestagent doctor [--json] [--config FILE]

Checks all that this host needs: the configuration, rights and secrets, tools, the server and its settings, the store (one small
object is written, read back and removed), free space, and the clock. Then it says what to fix, in order. Changes nothing else. The
exit status is 0 when nothing has to be fixed, else that of the first failure. --json prints
{"ok", "checks": [{"name", "result", "message", "hint", "code"}], "fix": [...]}.

examples:
  guestagent doctor
  guestagent doctor --json | jq -r '.fix[] | .name + ": " + .message'
)help"},
    {"cat", R"help(guestagent cat HREF [--allow-plain] [--config FILE]

Writes the raw stream of a snapshot (decompressed, decrypted, every byte verified) to standard output. HREF is the metadata's
snapshot_href. When it does not end with status 0, what was written is not whole. --allow-plain takes a snapshot that is not encrypted
although the configuration has a key to encrypt with.

example:
  guestagent cat "$(jq -r .dataset.snapshot_href snapshot.json)" | mbstream -x -C /var/tmp/look
)help"},
    {"restore", R"help(guestagent restore HREF --to DIR [--allow-plain] [--config FILE]

Extracts a snapshot into DIR (new or empty) and prepares it, so that a server can be started on it. Touches neither the running
server nor its data; does not replicate. --allow-plain takes a snapshot that is not encrypted although the configuration has a key to
encrypt with.

example:
  guestagent restore "$(jq -r .dataset.snapshot_href snapshot.json)" --to /var/tmp/look
)help"},
};

Error usage(const std::string& why, const std::string& hint = "see guestagent --help") {
  return Error(Code::invalid_argument, why, hint);
}

void expect_words(const std::vector<std::string>& words, std::size_t least, std::size_t most, const std::string& form) {
  if (words.size() < least) throw usage("something is missing", "it is typed: guestagent " + form);
  if (words.size() > most)
    throw usage("too many arguments: " + printable(words[most]), "it is typed: guestagent " + form);
}

}  // namespace

std::string help_text(std::string_view command) {
  for (const HelpRow& row : kHelp) {
    if (row.command != command) continue;
    const bool takes_params = command == "call" || command == "oneshot";
    return std::string(row.text) + (takes_params ? std::string(kParams) + methods_text() + std::string(kEveryJob) : "");
  }
  if (command == "methods") return methods_text();
  return std::string(kOverview);
}

CommandLine parse_command_line(const std::vector<std::string>& arguments) {
  po::options_description options;
  CommandLine line;
  std::string config, to;
  bool oneshot = false, help = false, version = false;
  std::vector<std::string> words;
  options.add_options()                                                                 //
      ("config", po::value(&config)->default_value("/etc/guestagent/guestagent.yaml"))  //
      ("to", po::value(&to))                                                            //
      ("allow-plain", po::bool_switch(&line.allow_plain))                               //
      ("syntax-only", po::bool_switch(&line.syntax_only))                               //
      ("json", po::bool_switch(&line.json))                                             //
      ("verbose,v", po::bool_switch(&line.verbose))                                     //
      ("oneshot", po::bool_switch(&oneshot))                                            //
      ("version", po::bool_switch(&version))                                            //
      ("help,h", po::bool_switch(&help))                                                //
      ("word", po::value(&words));
  po::positional_options_description positional;
  positional.add("word", -1);
  try {
    po::variables_map found;
    namespace style = po::command_line_style;
    po::store(po::command_line_parser(arguments)
                  .options(options)
                  .positional(positional)
                  .style(style::unix_style & ~style::allow_guessing)
                  .run(),
              found);
    po::notify(found);
  } catch (const po::error& e) {
    throw usage(e.what());
  }
  line.config = config;
  line.to = to;
  if (version) return line.command = "version", line;

  std::string command = oneshot ? "oneshot" : words.empty() ? "" : words.front();
  if (!oneshot && !words.empty()) words.erase(words.begin());
  if (command == "help") {
    help = true;
    command = words.empty() ? "" : words.front();
  }
  if (help) {
    line.command = "help";
    line.help_of = command;
    return line;
  }
  line.command = command;
  if (command.empty()) throw usage("no command");
  if (!to.empty() && command != "restore") throw usage("--to: only restore takes it");
  if (line.allow_plain && command != "cat" && command != "restore")
    throw usage("--allow-plain: only cat and restore take it",
                "for the other commands there is snapshot.encryption.allow_plain in the configuration");
  if (line.syntax_only && command != "check-config") throw usage("--syntax-only: only check-config takes it");
  if (line.json && command != "doctor") throw usage("--json: only doctor takes it");
  if (command == "daemon" || command == "check-config" || command == "doctor") {
    expect_words(words, 0, 0, command);
  } else if (command == "oneshot" || command == "call") {
    expect_words(words, 1, 2, (oneshot ? "--oneshot" : command) + " METHOD [PARAMS]");
    line.method = words[0];
    if (words.size() > 1) line.params = words[1];
  } else if (command == "cat") {
    expect_words(words, 1, 1, "cat HREF");
    line.href = words[0];
  } else if (command == "restore") {
    expect_words(words, 1, 1, "restore HREF --to DIR");
    if (to.empty()) throw usage("restore: --to DIR is missing", "it is typed: guestagent restore HREF --to DIR");
    line.href = words[0];
  } else {
    const std::string_view meant = nearest(command, {"daemon", "call", "check-config", "doctor", "cat", "restore"});
    // The names of methods alone have it.
    const bool method = command.find('_') != std::string::npos;
    throw usage("there is no command " + printable(command),
                method          ? "methods are called: guestagent call METHOD, or guestagent --oneshot METHOD"
                : meant.empty() ? "see guestagent --help"
                                : "did you mean " + std::string(meant) + "?");
  }
  return line;
}

}  // namespace guestagent
