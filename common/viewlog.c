#include "common/viewlog.h"
