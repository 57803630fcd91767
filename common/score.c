#include "common/score.h"
