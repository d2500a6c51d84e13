// That a directory has a whole, prepared copy of a stream: each file with its size and its CRC-32, so that what became
// of it since is noticed before a server runs on it.
//
// A file of text beside the directory, written when all is on the disk.
#pragma once

#include "base/held_dir.h"
#include "base/job_context.h"
#include "stream/piece_source.h"

namespace guestagent::mysql {

fs::path ready_record_path(const fs::path& dir);

// Reads every file of `dir` and writes the record. `kind` has a digest. Cancellable.
void write_ready(const HeldDir& dir, const PieceSource::Kind& kind, JobContext& job);

// Whether there is a record for this stream. Touches nothing, reads no file of the copy.
bool is_ready_for(const fs::path& dir, const PieceSource::Kind& kind);

// Reads every file of `dir` back: throws data_loss, naming the first, for one that is not as the record says, is
// missing or is one too many. Cancellable. REQUIRES: is_ready_for().
void check_ready(const HeldDir& dir, JobContext& job);

}  // namespace guestagent::mysql
