// Whether the tables of restored data can be read: a success that hides a table without its file, or without its key,
// is none.
#pragma once

#include "base/clock.h"
#include "base/job_context.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/source/source_server.h"

namespace guestagent::mysql {

// How long check_tables_open opens tables at most. It takes less than a millisecond a table; what is left then is told
// in a warning.
inline constexpr Seconds kOpeningTime{300};

// What a table's error means for a replica of it.
enum class TableTrouble {
  lost,       // a file is missing or damaged
  no_key,     // its key is not here
  no_engine,  // its engine is not here, which the preflight has told
  passing     // nothing that is wrong with the table
};
// `encrypted`: the source keeps it so. A table that cannot be decrypted looks damaged to some servers.
TableTrouble table_trouble(const TableFault& fault, bool encrypted);

// Opens every table of the user's whose files lie in the data directory. One that cannot be opened is data_loss, or
// failed_precondition where only its key is missing, naming some of them; one that `source` could not open either is a
// warning of the job.
void check_tables_open(ServerClient& client, const SourceServer& source, Clock& clock, JobContext& job);

}  // namespace guestagent::mysql
