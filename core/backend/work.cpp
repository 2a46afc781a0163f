#include "core/backend/work.hpp"

namespace kvlab {

void Work::clear() {
  checks.clear();
  moves.clear();
  uploads.clear();
  staged.clear();
  sources.clear();
  copies.clear();
  scores.clear();
  encodes.clear();
  gathers.clear();
  kept.clear();
}

}  // namespace kvlab
