// Philox4x32-10: random numbers as a function of seed, stream, step and index.
//
// Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

// The four 32-bit words of block `index` of a stream.
FORMULA void philox_block(
    unsigned index, unsigned long long seed, unsigned stream, unsigned long long step, unsigned* words)
{
    unsigned c0 = index, c1 = stream, c2 = (unsigned)step, c3 = (unsigned)(step >> 32);
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        unsigned long long p0 = (unsigned long long)c0 * 0xD2511F53u;
        unsigned long long p1 = (unsigned long long)c2 * 0xCD9E8D57u;
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned)p1;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

// A uniform number in (0, 1) from a word.
FORMULA double uniform_of(unsigned word) { return (word + 0.5) * (1.0 / 4294967296.0); }

// Standard normal numbers 4 * index to 4 * index + 3 of a stream: Box and Muller.
FORMULA void normal_block(
    unsigned index, unsigned long long seed, unsigned stream, unsigned long long step, double* numbers)
{
    unsigned words[4];
    philox_block(index, seed, stream, step, words);
    for (int pair = 0; pair < 2; ++pair) {
        double radius = sqrt(-2.0 * log(uniform_of(words[2 * pair])));
        double angle = 6.283185307179586 * uniform_of(words[2 * pair + 1]);
        numbers[2 * pair] = radius * cos(angle);
        numbers[2 * pair + 1] = radius * sin(angle);
    }
}
