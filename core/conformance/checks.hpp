// The checks: each throws Failure with a sentence, or returns. A method that it loaded is the process's own.
#pragma once

#include "core/conformance/cases.hpp"

namespace kvlab::conformance {

// ---- codecs --------------------------------------------------------------------------------------------------------

void accepts_something(const Method& method, const Place& place);
void decodes_finite(const Method& method, const Place& place);
void decodes_in_parts(const Method& method, const Place& place);
void repeats_itself(const Method& method, const Place& place);
void ignores_layout(const Method& method, const Place& place);
void gathers_losslessly(const Method& method, const Place& place);
void attends_as_it_decodes(const Method& method, const Place& place);
void survives_damage(const Method& method, const Place& place);
void takes_any_positions(const Method& method, const Place& place);

// ---- selectors -----------------------------------------------------------------------------------------------------

void scores_something(const Method& method, const Place& place);
void scores_repeatedly(const Method& method, const Place& place);
void keeps_to_its_scope(const Method& method, const Place& place);

// ---- both ----------------------------------------------------------------------------------------------------------

void works_in_a_cache(const Method& method, const Place& place);

}  // namespace kvlab::conformance
