#include "common/payload.h"
