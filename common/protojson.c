#include "common/protojson.h"
