#include "experiments/app/commands.hpp"

namespace kvlab {
extern const char* const commit;  // written by the build
}

int main(int argc, char** argv) { return kvlab::run_app(argc, argv, kvlab::commit); }
