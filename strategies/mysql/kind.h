// This family's row of the table of datastores.
#pragma once

#include "strategies/datastore_kind.h"

namespace guestagent::mysql {

extern const DatastoreKind kKind;

}  // namespace guestagent::mysql
