#include "common/bus.h"
