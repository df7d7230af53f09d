//! Traces made up, of every format, for two volumes where the format has several.

/// A small source of numbers that only look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A request of a made trace, in sectors.
pub struct Made {
    us: u64,
    volume: u64,
    write: bool,
    sector: u64,
    count: u64,
}

/// Requests that overlap each other, cross blocks, and share times.
pub fn made(rows: u64) -> Vec<Made> {
    let mut numbers = Numbers(0x1234_5678);
    let row = |at| Made {
        us: at / 3 * 100,
        volume: numbers.below(2),
        write: numbers.below(3) > 0,
        sector: numbers.below(400),
        count: 1 + numbers.below(60),
    };
    (0..rows).map(row).collect()
}

pub fn msr(rows: &[Made]) -> String {
    let line = |row: &Made| {
        let time = 128_166_372_003_061_629 + row.us * 10;
        let kind = if row.write { "Write" } else { "Read" };
        format!("{time},hm,{},{kind},{},{},100\n", row.volume, row.sector * 512, row.count * 512)
    };
    rows.iter().map(line).collect()
}

fn spc(rows: &[Made]) -> String {
    let line = |row: &Made| {
        let kind = if row.write { 'w' } else { 'r' };
        let (s, us) = (row.us / 1_000_000, row.us % 1_000_000);
        format!("{},{},{},{kind},{s}.{us:06}\n", row.volume, row.sector, row.count * 512)
    };
    rows.iter().map(line).collect()
}

pub fn fio(rows: &[Made]) -> String {
    let mut text = "fio version 3 iolog\n0 d0 add\n0 d1 add\n0 d0 open\n0 d1 open\n".to_string();
    for (at, row) in rows.iter().enumerate() {
        let kind = match (at % 7, row.write) {
            (6, _) => "trim",
            (_, true) => "write",
            (_, false) => "read",
        };
        let Made { us, volume, sector, count, .. } = row;
        text += &format!("{us} d{volume} {kind} {} {}\n", sector * 512, count * 512);
        if at % 5 == 0 {
            text += &format!("{us} d{volume} sync\n");
        }
    }
    text
}

fn disksim(rows: &[Made]) -> String {
    let line = |row: &Made| {
        let kind = u8::from(!row.write);
        format!("{:.3} {} {} {} {kind}\n", row.us as f64 / 1e3, row.volume, row.sector, row.count)
    };
    rows.iter().map(line).collect()
}

/// Every format: its name, how many volumes it tells apart, and the trace.
pub fn formats(rows: &[Made]) -> [(&'static str, u64, Vec<u8>); 12] {
    let text = |line: &dyn Fn(&Made) -> String| rows.iter().map(line).collect::<String>();
    let seconds = |us: u64| format!("{}.{:06}000", us / 1_000_000, us % 1_000_000);
    let letter = |row: &Made| if row.write { 'W' } else { 'R' };
    let alibaba = text(&|row| {
        let (offset, length) = (row.sector * 512, row.count * 512);
        format!(
            "{},{},{offset},{length},{}\n",
            row.volume,
            letter(row),
            1_577_808_000_000_046 + row.us
        )
    });
    let tencent = text(&|row| {
        let (time, kind) = (1_538_323_199 + row.us / 1_000_000, u8::from(row.write));
        format!("{time},{},{},{kind},{}\n", row.sector, row.count, row.volume)
    });
    let systor = text(&|row| {
        let (time, kind) = (seconds(1_456_095_145_000_000 + row.us), letter(row));
        let (offset, length) = (row.sector * 512, row.count * 512);
        format!("{time},0.000806000,{kind},{},{offset},{length}\n", row.volume)
    });
    let blkparse = text(&|row| {
        let (time, kind) = (seconds(row.us), letter(row));
        format!("  8,{} 0 1 {time} 9 Q {kind} {} + {} [a]\n", row.volume, row.sector, row.count)
    });
    let blkreplay = text(&|row| {
        let (time, kind) = (seconds(row.us), letter(row));
        format!("{time} ; {} ; {} ; {kind} ; 0.0 ; 0.0\n", row.sector, row.count)
    });
    let simulator = text(&|row| {
        let (ns, kind) = (row.us * 1000, u8::from(!row.write));
        format!("{ns} {} {} {} {kind}\n", row.volume, row.sector, row.count)
    });
    [
        ("msr", 2, msr(rows).into()),
        ("alibaba", 2, alibaba.into()),
        ("tencent", 2, tencent.into()),
        ("spc", 2, spc(rows).into()),
        ("systor", 2, format!("Timestamp,Response,IOType,LUN,Offset,Size\n{systor}").into()),
        ("vscsi", 1, rows.iter().flat_map(vscsi).collect()),
        ("blkparse", 2, format!("{blkparse}CPU0 (sda):\n Reads Queued: 0, 0KiB\n").into()),
        ("blkreplay", 1, format!("####\nstart ; sector; length ; op\n{blkreplay}").into()),
        ("fio", 2, fio(rows).into()),
        ("ssdsim", 2, simulator.clone().into()),
        ("mqsim", 2, simulator.into()),
        ("disksim", 2, disksim(rows).into()),
    ]
}

/// A record of version 1.
fn vscsi(row: &Made) -> Vec<u8> {
    let command: u16 = if row.write { 0x2a } else { 0x28 };
    let words = [7, (row.count * 512) as u32, 1].map(u32::to_le_bytes).concat();
    let halves = [command, 1 << 8].map(u16::to_le_bytes).concat();
    let longs = [row.sector, 5_633_898_368_802_000 + row.us].map(u64::to_le_bytes).concat();
    [words, halves, longs].concat()
}
