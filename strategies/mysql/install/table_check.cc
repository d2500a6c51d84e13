#include "strategies/mysql/install/table_check.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kNamed = 5;
constexpr std::size_t kAtOnce = 100;  // tables between two looks at the clock and the job

struct Faults {
  std::size_t count = 0;
  std::string named;

  void add(const TableName& table, const std::string& why) {
    if (++count > kNamed) return;
    named +=
        (named.empty() ? "" : "; ") + table.schema + "." + table.name + (why.empty() ? "" : ": " + printable(why, 200));
  }
  std::string text() const {
    return named + (count > kNamed ? "; and " + std::to_string(count - kNamed) + " more" : "");
  }
};

bool says(const TableFault& fault, std::string_view words) {
  return fault.message.find(words) != std::string::npos;
}

}  // namespace

TableTrouble table_trouble(const TableFault& fault, bool encrypted) {
  switch (fault.number) {
    case 3185:  // MySQL: no master key
    case 3184:
      return TableTrouble::no_key;
    case 1286:  // unknown engine
    case 1289:  // a feature that is off
    case 1524:  // a plugin that is not loaded
      return TableTrouble::no_engine;
    case 1814:  // discarded on the source
    case 1205:  // lock wait
    case 1969:
    case 3024:  // a limit of time
    case 1317:
      return TableTrouble::passing;
    default:
      break;
  }
  if (encrypted && fault.number == 1877) return TableTrouble::no_key;
  if (says(fault, "encrypt") || says(fault, "decrypt") || says(fault, "error 192")) return TableTrouble::no_key;
  return TableTrouble::lost;
}

void check_tables_open(ServerClient& client, const SourceServer& source, Clock& clock, JobContext& job) {
  const auto listed = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const std::vector<TableName> tables = client.tables_in_files();
  const SteadyTime end = clock.steady() + kOpeningTime;
  Faults lost, no_key, no_engine, before;
  std::size_t opened = 0;
  for (const TableName& table : tables) {
    if (opened % kAtOnce == 0) {
      job.check_cancelled();
      if (clock.steady() >= end) break;
    }
    ++opened;
    const auto fault = client.why_not_opened(table.schema, table.name);
    if (!fault) continue;
    const TableTrouble trouble =
        table_trouble(*fault, listed(source.encrypted_tables, table.schema + "/" + table.name));
    if (trouble == TableTrouble::passing) continue;
    if (trouble == TableTrouble::no_engine) {
      no_engine.add(table, "");
    } else if (listed(source.unopenable_tables, table.schema + "." + table.name)) {
      before.add(table, "");
    } else {
      (trouble == TableTrouble::no_key ? no_key : lost).add(table, fault->message);
    }
  }
  if (lost.count != 0) {
    throw Error(Code::data_loss,
                "opening the tables of the copy: " + std::to_string(lost.count) + " cannot be opened: " + lost.text(),
                "take a new snapshot while no tables are renamed or altered; a table that the source cannot read "
                "either is to be dropped there before" +
                    std::string(source.encrypted_tables.empty()
                                    ? ""
                                    : "; tables of the source are encrypted, which needs its keys here"));
  }
  if (no_key.count != 0) {
    throw Error(
        Code::failed_precondition,
        "opening the tables of the copy: " + std::to_string(no_key.count) + " cannot be decrypted: " + no_key.text(),
        "give this server the source's keys: the same key plugin or keyring component, with the same keys");
  }
  if (no_engine.count != 0)
    job.warn("tables whose storage engine is not here, which cannot be read: " + no_engine.text());
  if (before.count != 0)
    job.warn("tables that the source could not open, and that cannot be opened here: " + before.text());
  if (opened < tables.size()) {
    job.warn("of " + std::to_string(tables.size()) + " tables " + std::to_string(opened) +
             " were opened, all that could be in " + std::to_string(kOpeningTime.count()) +
             " s; the rest was not looked at");
  }
}

}  // namespace guestagent::mysql
