// What of a server's own configuration works against a replica: at its next start, or for as long as it replicates.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "strategies/datastore.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/server/dialect.h"

namespace guestagent::mysql {

struct ReplicaOptionFacts {
  Family family = Family::mariadb;
  std::map<std::string, std::string> running;  // the server's global variables, lower-case names
  // Of the option files without the managed one, and of the server's command line; in the order in which the server
  // reads them.
  std::vector<OptionLine> configured;
  bool group_member = false;     // it is one of a group (MySQL's group replication) now
  bool source_is_known = false;  // of the two below
  bool source_has_gtid = false;  // replicas are to follow by GTID
};

// Failed checks for what replication cannot live with (a cluster that would replace the data, rewritten names, a rescue
// start), warnings for what makes the replica another than its source. Nothing is said of what the managed file sets by
// itself. One table of rules.
std::vector<Check> check_replica_options(const ReplicaOptionFacts& facts);

// The options of the command line of process `pid` ("--name=value"), as lines; empty where it cannot be read.
std::vector<OptionLine> command_line_options(int pid);
// The same of a command to be run.
std::vector<OptionLine> options_of(const std::vector<std::string>& arguments, const std::string& where);

// What stands in `managed_text` and is not so on the running server: "server_id is 7, not 33". Options that the server
// shows no variable of are not looked at, nor are the names of its logs, which may well be its own.
std::vector<std::string> not_in_force(const std::string& managed_text,
                                      const std::map<std::string, std::string>& running);

}  // namespace guestagent::mysql
