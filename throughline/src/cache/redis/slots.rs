//! Which part of a cluster a key belongs to, and what a cluster says of its parts.

use ::redis::Value;

use super::address::Host;

/// How many parts there are.
pub(super) const SLOTS: u16 = 16_384;

/// The nodes that take writes, each with its slots from the first to the last.
pub(super) type Shares = Vec<(Host, std::ops::RangeInclusive<u16>)>;

/// The slot of a key. Of a name with `{…}` in it only what stands between counts.
pub(super) fn slot(name: &[u8]) -> u16 {
    let tag = name.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &name[open + 1..];
        rest.iter().position(|byte| *byte == b'}').map(|length| &rest[..length])
    });
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(name)) % SLOTS
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) ^ TABLE[usize::from((sum >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let (mut at, mut high) = (0, 0_u16);
    while at < 256 {
        let (mut sum, mut bit) = (high, 0);
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
        high = high.wrapping_add(0x100);
    }
    table
};

/// The answer to `CLUSTER SLOTS` of the node at `asked`; `None` when it is no such answer.
pub(super) fn read(answer: &Value, asked: &Host) -> Option<Shares> {
    let Value::Array(shares) = answer else { return None };
    shares.iter().map(|share| read_share(share, asked)).collect()
}

fn read_share(share: &Value, asked: &Host) -> Option<(Host, std::ops::RangeInclusive<u16>)> {
    let Value::Array(parts) = share else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = parts.as_slice() else { return None };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    if first > last || last >= SLOTS {
        return None;
    }
    let [name, Value::Int(port), ..] = node.as_slice() else { return None };
    let name = match name {
        Value::BulkString(name) if !name.is_empty() && name != b"?" => {
            String::from_utf8(name.clone()).ok()?
        }
        Value::SimpleString(name) => name.clone(),
        // The node does not know its own name.
        _ => asked.name.clone(),
    };
    Some((Host { name, port: u16::try_from(*port).ok()? }, first..=last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_belong_to_the_slots_that_the_specification_says() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar"), crc16(b"foo{bar") % 16_384);
    }

    #[test]
    fn only_an_answer_about_slots_is_taken_for_one() {
        let asked = Host { name: "asked".to_owned(), port: 1 };
        let node = |name: Value| Value::Array(vec![name, Value::Int(7000), Value::Nil]);
        let share = |first, last, name| {
            Value::Array(vec![Value::Array(vec![Value::Int(first), Value::Int(last), node(name)])])
        };
        let host = |name: &str| Host { name: name.to_owned(), port: 7000 };
        let named = Value::BulkString(b"h".to_vec());
        assert_eq!(read(&share(0, 5, named.clone()), &asked), Some(vec![(host("h"), 0..=5)]));
        assert_eq!(read(&share(0, 5, Value::Nil), &asked), Some(vec![(host("asked"), 0..=5)]));
        for wrong in
            [share(5, 0, named.clone()), share(0, 16_384, named.clone()), share(-1, 0, named), Value::Int(3)]
        {
            assert_eq!(read(&wrong, &asked), None, "{wrong:?}");
        }
    }
}
