/* Deliberate faults in the decision code, by which the simulator shows that it would find them (tests/sim/README.md).
 *
 * SIM_FAULT(NAME) is false in everything that is shipped, and the compiler drops what depends on it. Only sim_prove is
 * compiled with SBX_SIM_FAULTS, and turns on one fault at a time. The faults are listed in tests/sim/faults_table.h.
 */
#ifndef SBX_COMMON_SIM_FAULT_H
#define SBX_COMMON_SIM_FAULT_H

#ifdef SBX_SIM_FAULTS

#include <stdbool.h>

enum sim_fault {
    SIM_FAULT_NONE,
#define FAULT(name, breaks) SIM_FAULT_##name,
#include "tests/sim/faults_table.h"
#undef FAULT
    SIM_FAULT_COUNT
};

extern enum sim_fault sim_fault_active;

#define SIM_FAULT(name) (sim_fault_active == SIM_FAULT_##name)

#else
#define SIM_FAULT(name) 0
#endif

#endif
